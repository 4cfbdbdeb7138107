"""Backbones: sizes of the method cards, and normalisation that does what its name says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.contract import NetSpec
from bench.errors import BenchError
from bench.nets.base import Backbone, initialise
from bench.nets.build import build_net
from bench.nets.norm import (
    RecordingNorm,
    batch_norm,
    batch_statistics,
    running_norm,
    training_norm,
)
from bench.registry import names


@pytest.mark.parametrize(
    ("architecture", "size", "parameters", "features", "norms"),
    [
        ("conv4", 32, 29_541, 128, 4),
        ("conv4", 84, 32_901, 800, 4),
        ("resnet10", 32, 4_900_677, 512, 12),
        ("resnet18", 84, 11_171_397, 512, 20),
    ],
)
def test_sizes(architecture: str, size: int, parameters: int, features: int, norms: int) -> None:
    net = build_net(NetSpec(architecture, 5, size))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.features(torch.zeros(2, 3, size, size)).shape == (2, features)
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == norms


@pytest.mark.parametrize("architecture", names("net"))
def test_any_image_size(architecture: str) -> None:
    for size in (16, 28, 47):
        assert build_net(NetSpec(architecture, 3, size))(torch.zeros(1, 3, size, size)).shape == (
            1,
            3,
        )


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size 8"):
        build_net(NetSpec("conv4", 5, 8))


def _net(seed: int = 0) -> nn.Module:
    net = build_net(NetSpec("conv4", 5, 16))
    initialise(net, torch.Generator().manual_seed(seed))
    return net


def _images(n: int = 12, seed: int = 1) -> torch.Tensor:
    images = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    assert images.std() > 0.5
    return images


def test_initialise_follows_its_generator_only() -> None:
    state = torch.random.get_rng_state()
    a, b, c = _net(0), _net(0), _net(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(a.convs[0].weight, b.convs[0].weight)
    assert not torch.equal(a.convs[0].weight, c.convs[0].weight)


def test_initialise_has_torchs_own_scale() -> None:
    ours, theirs = build_net(NetSpec("resnet10", 5, 32)), build_net(NetSpec("resnet10", 5, 32))
    initialise(ours, torch.Generator().manual_seed(0))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if a.numel() > 1000:
            torch.testing.assert_close(a.std(), b.std(), rtol=0.1, atol=0)


class _Attends(nn.Module):
    """What a vision transformer holds besides convolutions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 64))
        self.attention = nn.MultiheadAttention(64, 2)
        self.norm = nn.LayerNorm(64)


def test_initialise_draws_all_that_a_transformer_has() -> None:
    nets = [_Attends(), _Attends()]
    for net in nets:
        initialise(net, torch.Generator().manual_seed(0))
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b), name
    assert nets[0].token.std().item() == pytest.approx(0.02, rel=0.3)
    assert nets[0].attention.in_proj_weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(nets[0].norm.weight, torch.ones(64))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm3d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.InstanceNorm2d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(4),
        nn.PReLU(4, 0.1),
    ],
)
def test_initialise_draws_no_scales(layer: nn.Module) -> None:
    expected = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.add_(3)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    initialise(layer, generator)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(generator.get_state(), state)


def test_training_norm_equals_torchs_train_mode() -> None:
    ours, theirs, images = _net(), _net().train(), _images()
    with torch.no_grad():
        ours(images, training_norm)
    for conv, bn in zip(theirs.convs, theirs.norms, strict=True):
        images = torch.max_pool2d(torch.relu(bn(conv(images))), 2)
    for name, value in ours.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, theirs.state_dict()[name])


def test_running_norm_equals_torchs_eval_mode_and_batch_norm_does_not() -> None:
    net, images = _net(), _images()
    net(images, training_norm)
    bn, x = (
        net.norms[0].eval(),
        torch.randn(4, 32, 5, 5, generator=torch.Generator().manual_seed(2)),
    )
    torch.testing.assert_close(running_norm(bn, x), bn(x))
    assert not torch.allclose(batch_norm(bn, x), bn(x), atol=1e-3)


def test_recording_norm_keeps_the_inputs_statistics() -> None:
    net, images = _net(), _images()
    recording = RecordingNorm()
    torch.testing.assert_close(net(images, recording), net(images))
    assert [layer for layer, _, _ in recording.layers] == list(net.norms)
    first = net.convs[0](images)
    _, mean, variance = recording.layers[0]
    torch.testing.assert_close(mean, first.mean((0, 2, 3)))
    torch.testing.assert_close(variance, first.var((0, 2, 3), unbiased=False))


def test_batch_statistics_are_biased() -> None:
    x = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    mean, variance = batch_statistics(x)
    assert mean.item() == 1.0
    assert variance.item() == 1.0


@pytest.mark.parametrize("architecture", names("net"))
def test_scaled_features_are_the_features_times_the_factor(architecture: str) -> None:
    """Exact where norms use the batch's statistics; a norm's epsilon is all that can differ."""
    net = build_net(NetSpec(architecture, 5, 16)).double()
    initialise(net, torch.Generator().manual_seed(0))
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    before = net.features(images, batch_norm)
    net.scale_features(10.0)
    torch.testing.assert_close(net.features(images, batch_norm), 10 * before, rtol=1e-3, atol=1e-3)


def test_a_net_that_cannot_scale_its_features_says_so() -> None:
    class Plain(Backbone):
        def features(self, x, norm=None):
            return x

    with pytest.raises(BenchError, match="Plain cannot scale its features; use a factor of 1"):
        Plain().scale_features(2.0)
