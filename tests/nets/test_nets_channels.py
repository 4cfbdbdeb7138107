"""Channel axes found by following a pass: moving channels along them changes no function."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.merging._channels import group_sizes, groups_of, permute, positions
from bench.contract import Skip
from bench.nets.base import Backbone
from bench.nets.channels import Axis, trace_channels
from bench.nets.imported import Imported
from bench.nets.precision import computing_in
from tests.helpers import tiny_net


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved_everywhere(net: Backbone, size: int) -> tuple[Tensor, Tensor]:
    """Return the outputs before and after all channels were moved, in double precision."""
    net = net.double().eval()
    images = torch.randn(3, 3, size, size, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        before, axes = net(images), net.channel_axes(size)
        sizes = group_sizes(net.state_dict(), axes)
        order = {group: torch.randperm(n, generator=generator(1)) for group, n in sizes.items()}
        state = {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict(permute(state, axes, order))
        assert not any(torch.equal(net.state_dict()[a.entry], state[a.entry]) for a in axes[:1])
        return before, net(images)


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("conv4", 32),
        ("conv4_pooled", 32),
        ("resnet10", 16),
        ("resnet18", 16),
        ("torchvision:mobilenet_v3_small", 32),  # depthwise, gates, two linear layers
        ("torchvision:alexnet", 64),  # no batch norm
    ],
)
def test_moving_channels_changes_the_weights_and_not_the_function(
    architecture: str, size: int
) -> None:
    before, after = moved_everywhere(tiny_net(generator(), architecture, 5, size), size)
    torch.testing.assert_close(after, before)


class Odd(nn.Module):
    """A network of another author: slopes by channel, a flattened hidden layer, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.slope, self.second = nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.hidden, self.last = nn.Linear(6 * 16, 7), nn.Linear(7, 5)
        with torch.no_grad():
            self.slope.weight.copy_(torch.linspace(0, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 8, 8) to (B, 5)."""
        x = self.slope(self.norm(self.first(x)))
        x = F.avg_pool2d(0.5 * x + self.second(x), 2)
        return self.last(torch.tanh(self.hidden(x.view(len(x), -1))))


def test_a_network_of_another_author_is_followed() -> None:
    net = Imported(Odd())
    before, after = moved_everywhere(net, 8)
    torch.testing.assert_close(after, before)
    assert groups_of(net.channel_axes(8)) == ("body.first", "body.hidden")
    assert Axis("body.hidden.weight", 1, "body.first", 16) in net.channel_axes(8)


def test_axes_are_found_whatever_precision_a_cell_computes_in() -> None:
    net = tiny_net(generator())
    with computing_in("bfloat16", torch.device("cpu")):
        found = trace_channels(net, 16)
    assert found == trace_channels(net, 16)


def test_axes_of_conv4_are_as_written_down() -> None:
    axes = tiny_net(generator(), "conv4", 5, 32).channel_axes(32)
    norm = [f"norms.0.{entry}" for entry in ("weight", "bias", "running_mean", "running_var")]
    first = ["convs.0.weight", *norm, "convs.0.bias"]
    assert axes[:6] == tuple(Axis(entry, 0, "convs.0") for entry in first)
    second = [Axis("convs.1.weight", dim, f"convs.{1 - dim}") for dim in (0, 1)]
    assert axes[6:8] == tuple(second)
    assert axes[-1] == Axis("head.weight", 1, "convs.3", 4)
    assert positions(torch.tensor([1, 0]), 4).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_residual_streams_share_a_group() -> None:
    axes = tiny_net(generator(), "resnet18", 5, 16).channel_axes(16)
    streams = [g for g in groups_of(axes) if not g.endswith("conv1")]
    assert streams == ["stem", "blocks.2.conv2", "blocks.4.conv2", "blocks.6.conv2"]


def test_every_entry_but_the_heads_outputs_and_counters_has_an_axis() -> None:
    for architecture in ("conv4", "resnet10"):
        net = tiny_net(generator(), architecture, 5, 16)
        known = {axis.entry for axis in net.channel_axes(16)}
        rest = {n for n in net.state_dict() if n not in known}
        assert {n.rpartition(".")[2] for n in rest} == {"num_batches_tracked", "bias"}
        assert {n for n in rest if n.endswith("bias")} == {"head.bias"}


class Declaring(Imported):
    """Says what its channels are."""

    def channel_axes(self, image_size: int) -> tuple[Axis, ...]:
        """Return one axis."""
        return (Axis("head.weight", 1, "mine", image_size),)


def test_a_network_may_declare_its_axes() -> None:
    assert Declaring(Odd()).channel_axes(8) == (Axis("head.weight", 1, "mine", 8),)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("torchvision:densenet121", "channels of DenseNet cannot be followed through 'cat'"),
        ("torchvision:vit_b_16", "channels of VisionTransformer cannot be followed"),
        ("torchvision:regnet_y_400mf", "a convolution of 6 groups"),
    ],
)
def test_what_cannot_be_followed_is_named(architecture: str, words: str) -> None:
    with torch.random.fork_rng():
        net = tiny_net(generator(), architecture, 5, 32)
    with pytest.raises(Skip, match=words):
        trace_channels(net, 32)


@pytest.mark.parametrize("kind", ["scaled", "reused", "tied"])
def test_what_cannot_be_moved_is_named(kind: str) -> None:
    class Wrong(Odd):
        """One of three things that no permutation survives."""

        def forward(self, x: Tensor) -> Tensor:
            """Scale channels by constants, use a layer twice, or compute its weights."""
            x = self.first(x)
            if kind == "scaled":
                x = x * torch.arange(6.0).view(6, 1, 1)
            elif kind == "reused":
                x = self.second(self.second(x))
            else:
                x = F.conv2d(x, 2 * self.second.weight)
            return self.last(self.hidden(F.adaptive_avg_pool2d(x, 4).flatten(1)))

    with pytest.raises(Skip, match="of Wrong cannot be followed"):
        trace_channels(Imported(Wrong().eval()), 8)
