"""Others' networks as backbones: batch norm by the caller, names of torchvision and timm."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.contract import NetSpec, TaskShape
from bench.errors import BenchError
from bench.learners.norms import elementary_batch_norm
from bench.nets.build import build_net, check_net
from bench.nets.imported import Imported, _has_a_size, build_named
from bench.nets.norm import Norm, RecordingNorm, batch_norm, running_norm, training_norm
from bench.teachers.checkpoint import import_checkpoint
from bench.teachers.train import recipe_for, train_teacher
from bench.teachers.transfer import load_pool
from tests.helpers import tiny_tasks
from tests.teachers.own_networks import Odd, Small, card, generator, images, refused, saved, state


def test_batch_norm_is_the_callers(own_nets: None) -> None:
    net = Imported(Small(3, 16)).eval()
    net.load_state_dict(state(net))
    x = images()
    recording = RecordingNorm()
    assert torch.equal(net.features(x, recording), net.features(x, running_norm))
    ((layer, mean, variance),) = recording.layers
    convolved = net.body.conv(x)
    torch.testing.assert_close(mean, convolved.mean((0, 2, 3)))
    torch.testing.assert_close(variance, convolved.var((0, 2, 3), correction=0))
    assert layer is net.body.bn
    by_batch = F.relu(batch_norm(layer, convolved)).mean((2, 3))
    torch.testing.assert_close(net.features(x, batch_norm), by_batch)
    assert not torch.allclose(by_batch, net.features(x))


def test_dropout_is_off_in_training_and_scoring(own_nets: None) -> None:
    """What the global stream has given before changes no teacher, and accuracy is of the net."""
    spec = NetSpec("small", 3, 16)
    labels = torch.arange(3).repeat(8)
    batch = images(24, 16), labels

    def trained(seed: int) -> dict[str, torch.Tensor]:
        recipe = recipe_for("small", 2, "last")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = train_teacher(spec, batch, batch, recipe, generator(), torch.device("cpu"))
        return found.snapshots["last"].state

    net = build_net(spec)
    assert not any(part.training for part in net.modules())
    one, other = trained(0), trained(1)
    assert all(torch.equal(one[name], other[name]) for name in one)


class BatchNormAct2d(nn.BatchNorm2d):
    """Normalises and activates, in the manner of timm: by torch's function, not by `super()`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.relu(F.batch_norm(x, *own, self.training, self.momentum, self.eps))


class Scaled(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class WrittenOut(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean((0, 2, 3), keepdim=True)


class OneMore(nn.BatchNorm2d):
    """Scales by 1 more than its parameter, which the caller's norms would not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = (self.running_mean, self.running_var, self.weight + 1, self.bias)
        return F.batch_norm(x, *own, self.training, self.momentum, self.eps)


class Choosy(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] > 8
        return super().forward(x)


def small_with(norm: nn.Module) -> nn.Module:
    net = Small(3, 16)
    net.bn = norm
    return net


@pytest.mark.parametrize("kind", [BatchNormAct2d, Scaled])
@pytest.mark.parametrize("norm", [running_norm, batch_norm, training_norm])
def test_kinds_of_batch_norm_are_the_callers_too(kind: type, norm: Norm) -> None:
    """They activate by themselves, which the plain network does once more without effect."""
    nets = [Imported(small_with(k(6))).eval() for k in (kind, nn.BatchNorm2d)]
    for net in nets:
        net.load_state_dict(state(net))
    nets[0] = deepcopy(nets[0])
    found, expected = (net.features(images(), norm) for net in nets)
    assert torch.equal(found, expected)
    for name, value in nets[1].state_dict().items():
        assert torch.equal(nets[0].state_dict()[name], value), name
    recording = RecordingNorm()
    nets[0].features(images(), recording)
    assert [layer for layer, *_ in recording.layers] == [nets[0].body.bn]
    x = torch.randn(4, 6, 2, 2, generator=generator())
    assert nets[0].body.bn(x).min() == 0 > nets[1].body.bn(x).min()
    again = Imported(small_with(nets[0].body.bn)).eval()
    assert torch.equal(again.body.bn(x), nets[1].body.bn(x).relu())


def test_a_kind_of_batch_norm_serves_transforms() -> None:
    nets = [Imported(small_with(k(6))).eval() for k in (BatchNormAct2d, nn.BatchNorm2d)]
    for net in nets:
        net.load_state_dict(state(net))
    tasks = tiny_tasks(generator(), 2, TaskShape(3, 1, 2))
    found = []
    for net in nets:
        net.requires_grad_(False)

        def one(x: torch.Tensor, net: Imported = net) -> torch.Tensor:
            return net.features(x, elementary_batch_norm)

        found.append(torch.func.vmap(one)(tasks.support_x))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "norm",
    [
        WrittenOut(6),
        OneMore(6),
        Choosy(6),
        nn.SyncBatchNorm(6),
        nn.BatchNorm3d(6),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6)),
    ],
)
def test_batch_norm_out_of_the_callers_reach_is_refused(norm: nn.Module) -> None:
    kind = type(norm[-1] if isinstance(norm, nn.Sequential) else norm).__name__
    with pytest.raises(
        BenchError, match=rf"network Small normalises in 'bn.*' by {kind}, "
    ) as error:
        Imported(small_with(norm))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_torchvision_networks_by_name(tmp_path: Path, name: str) -> None:
    net = build_named(name, 4, 32)
    path = saved(tmp_path / "net.safetensors", net)
    net.load_state_dict(state(net))
    import_checkpoint(tmp_path, "mine", path, card(name, 4, image_size=32))
    (teacher,) = load_pool(tmp_path, "mine")
    expected = net.eval()(images(2, 32))
    torch.testing.assert_close(teacher.net(images(2, 32)), expected, rtol=1e-4, atol=1e-4)
    assert teacher.net.features(images(2, 32)).shape == (2, teacher.net.n_features)


def test_maxvit_is_not_taken_for_a_vit() -> None:
    assert type(build_named("torchvision:maxvit_t", 2, 224)).__name__ == "MaxVit"


def test_a_timm_network_by_name(tmp_path: Path, timm: None) -> None:
    net = Small(4, 16)
    path = saved(tmp_path / "net.safetensors", net)
    net.load_state_dict(state(net))
    import_checkpoint(tmp_path, "mine", path, card("timm:small_vit_net", 4))
    (teacher,) = load_pool(tmp_path, "mine")
    torch.testing.assert_close(teacher.net(images()), net.eval()(images()))
    assert teacher.net.n_features == 6
    with pytest.raises(BenchError, match=r"timm network 'small_vit_nt'.*small_vit_net"):
        check_net("timm:small_vit_nt")


@pytest.mark.parametrize(("name", "side"), [("fixed", 16), ("flexible", 224)])
def test_a_timm_network_is_built_for_the_images_where_it_must_be(
    timm: None, name: str, side: int
) -> None:
    net = build_named(f"timm:{name}", 4, 16)
    assert net.fc.in_features == 3 * side**2
    assert net(images()).shape == (6, 4)


def test_looking_for_a_size_draws_nothing(timm: None) -> None:
    before = torch.get_rng_state()
    assert _has_a_size("fixed", 16)
    assert torch.equal(torch.get_rng_state(), before)


def test_timm_networks_that_do_not_take_the_images(tmp_path: Path, timm: None) -> None:
    path = saved(tmp_path / "net.safetensors", Odd(3))
    refused(tmp_path, path, "Odd does not take images of 16 px", net="timm:odd")
    refused(tmp_path, path, r"timm:broken cannot be built.*depth is no number", net="timm:broken")


def test_without_timm_its_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BenchError, match="need the package timm; pip install timm"):
        check_net("timm:resnet18")


def test_specs_of_imported_networks_build() -> None:
    net = build_net(NetSpec("torchvision:resnet18", 4, 32))
    assert net.head.out_features == 4
