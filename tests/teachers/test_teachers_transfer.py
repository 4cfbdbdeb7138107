"""Pools in and out: what comes back is what went in; what was tampered with is refused."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from bench import registry
from bench.cli.teachers import class_names
from bench.contract import NetSpec, Pool, TaskShape
from bench.errors import BenchError
from bench.learners.norms import elementary_batch_norm
from bench.nets.build import build_net, check_net
from bench.nets.imported import Imported, _has_a_size, build_named
from bench.nets.norm import Norm, RecordingNorm, batch_norm, running_norm, training_norm
from bench.teachers.cards import pool_names
from bench.teachers.train import recipe_for, train_teacher
from bench.teachers.transfer import export_pool, import_checkpoint, import_pool, load_pool
from tests.helpers import tiny_pool, tiny_tasks

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=generator(5))


class Small(nn.Module):
    """A user's own network: a head under another name, BN, and no notion of features."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.relu(self.bn(self.conv(x))).mean((2, 3)))


class SmallWithoutSize(Small):
    def __init__(self, n_classes: int):
        super().__init__(n_classes, 0)


class Backwards(Small):
    """Its last linear layer is not its end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class TwoHeads(Small):
    """The mean of two heads, as of distilled vision transformers."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__(n_classes, image_size)
        self.second = nn.Linear(6, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.bn(self.conv(x))).mean((2, 3))
        return (self.classifier(features) + self.second(features)) / 2


class Pair(Small):
    """Returns more than logits."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(x),)


class NoHead(nn.Module):
    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, n_classes, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


@pytest.fixture
def own_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that a user's package would offer through an entry point."""
    kinds = {"small": Small, "backwards": Backwards, "twoheads": TwoHeads, "pair": Pair,
             "nohead": NoHead}  # fmt: skip
    load, entry = registry.load, registry.entry
    monkeypatch.setattr(registry, "load", lambda kind, name: kinds.get(name) or load(kind, name))
    monkeypatch.setattr(
        registry, "entry", lambda kind, name: None if name in kinds else entry(kind, name)
    )


def state(net: nn.Module, seed: int = 1) -> dict[str, torch.Tensor]:
    """Drawn values for every entry, positive where they are variances."""
    drawn = {}
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=generator(seed)) * 0.3
        drawn[name] = noise.abs() + 0.5 if name.endswith("var") else noise
        if not value.is_floating_point():
            drawn[name] = value.clone()
    return drawn


def card(net: str = "small", n: int = 3, **changes: object) -> dict[str, object]:
    return {
        "architecture": net,
        "class_names": tuple(f"kind{i}" for i in range(n)),
        "dataset": "birds",
        "image_size": 16,
        "mean": MEAN,
        "std": STD,
        "accuracy": 0.75,
    } | changes


def saved(path: Path, net: nn.Module | None = None) -> Path:
    save_file(state(net or Small(3, 16)), path)
    return path


def test_an_exported_pool_comes_back(tmp_path: Path) -> None:
    pool = tiny_pool(["conv4", "resnet10"], 4, 16, generator())
    index = export_pool(list(pool), "tiny", "made here", tmp_path / "out")
    import_pool(tmp_path / "cache", "mine", tmp_path / "out")
    back = load_pool(tmp_path / "cache", "mine")
    assert pool_names(tmp_path / "cache") == ["mine"]
    assert back.sha256 == index.sha256
    for before, after in zip(pool, back, strict=True):
        assert after.spec == before.spec
        assert (after.class_names, after.class_ids) == (before.class_names, before.class_ids)
        assert (after.mean, after.std, after.accuracy) == (before.mean, before.std, before.accuracy)
        assert not any(p.requires_grad for p in after.net.parameters())
        torch.testing.assert_close(after.net(images()), before.net(images()))
        state, original = after.net.state_dict(), before.net.state_dict()
        assert all(torch.equal(state[name], original[name]) for name in original)
    with pytest.raises(BenchError, match="is there already"):
        import_pool(tmp_path / "cache", "mine", tmp_path / "out")
    with pytest.raises(BenchError, match="not there yet"):
        export_pool(list(pool), "tiny", "made here", tmp_path / "out")


def damage(folder: Path, kind: str) -> str:
    """Damage an exported pool; return what the refusal should name."""
    weights, teacher = folder / "00" / "net.safetensors", folder / "00" / "teacher.json"
    index = folder / "pool.json"
    if kind == "flipped byte":
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "accuracy raised":
        teacher.write_text(teacher.read_text().replace('"accuracy": 0.5', '"accuracy": 1.0'))
    elif kind == "no index":
        index.unlink()
    elif kind == "not JSON":
        index.write_text("<html>")
    elif kind == "outside":
        values = json.loads(index.read_text())
        values["teachers"][0]["folder"] = "../00"
        index.write_text(json.dumps(values))
        return "is not a number"
    elif kind == "another format":
        values = json.loads(index.read_text())
        index.write_text(json.dumps(values | {"format": 99}))
        return "format 99"
    return {"flipped byte": "was changed", "accuracy raised": "was changed"}.get(kind, "pool")


@pytest.mark.parametrize(
    "kind",
    [
        "flipped byte",
        "truncated",
        "no weights",
        "accuracy raised",
        "no index",
        "not JSON",
        "outside",
        "another format",
    ],
)
def test_a_damaged_pool_is_refused_before_parsing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_pool(list(tiny_pool(["conv4"], 3, 16, generator())), "t", "here", tmp_path / "out")
    expected = damage(tmp_path / "out", kind)

    def parsed(content: bytes) -> None:
        raise AssertionError("was parsed before its digest was compared")

    monkeypatch.setattr("bench.teachers.transfer.parse_safetensors", parsed)
    with pytest.raises(BenchError, match=expected) as caught:
        import_pool(tmp_path / "cache", "mine", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert pool_names(tmp_path / "cache") == []


def test_a_users_network_becomes_a_teacher(tmp_path: Path, own_nets: None) -> None:
    net = Small(3, 16)
    path = saved(tmp_path / "net.safetensors", net)
    net.load_state_dict(state(net))
    import_checkpoint(tmp_path / "cache", "mine", path, card())
    index = import_checkpoint(
        tmp_path / "cache", "mine", path, card(class_names=("kind0", "other", "third"))
    )
    pool = load_pool(tmp_path / "cache", "mine")
    assert len(pool) == len(index.teachers) == 2
    assert pool[0].class_ids[0] == pool[1].class_ids[0]
    assert pool.n_classes == 5
    assert (pool[0].mean, pool[0].std, pool[0].accuracy) == (MEAN, STD, 0.75)
    torch.testing.assert_close(pool[0].net(images()), net.eval()(images()))
    torch.testing.assert_close(
        pool[0].net.features(images()), F.relu(net.bn(net.conv(images()))).mean((2, 3))
    )


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


class Fixed(nn.Module):
    """Takes images of one size only, as vision transformers do."""

    def __init__(self, n_classes: int, img_size: int = 224):
        super().__init__()
        self.fc = nn.Linear(3 * img_size**2, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


class Flexible(Fixed):
    """Takes images of any size, though its weights are of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = round((self.fc.in_features / 3) ** 0.5)
        return super().forward(F.interpolate(x, (side, side)))


class Odd(nn.Module):
    """Takes images of 17 px, and no size to be built for."""

    def __init__(self, n_classes: int):
        super().__init__()
        self.fc = nn.Linear(3 * 17**2, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


class Broken(nn.Module):
    """Cannot be built for the size."""

    def __init__(self, n_classes: int, img_size: int = 224):
        super().__init__()
        if img_size != 224:
            raise TypeError("depth is no number")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError


TIMM = {"small_vit_net": SmallWithoutSize, "fixed": Fixed, "flexible": Flexible, "odd": Odd,
        "broken": Broken}  # fmt: skip


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with timm's two functions and some networks; the real one is no dependency."""

    def create_model(name: str, pretrained: bool, num_classes: int, **more: int) -> nn.Module:
        assert not pretrained
        return TIMM[name](num_classes, **more)

    stub = types.ModuleType("timm")
    stub.list_models, stub.create_model = lambda: list(TIMM), create_model
    monkeypatch.setitem(sys.modules, "timm", stub)
    _has_a_size.cache_clear()
    yield
    _has_a_size.cache_clear()


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


def refused(tmp_path: Path, path: Path, expected: str, *, net: str = "small", **options) -> None:
    values = card(net, **options.pop("changes", {}))
    with pytest.raises(BenchError, match=expected) as caught:
        import_checkpoint(tmp_path / "cache", "mine", path, values, **options)
    assert "\n" not in str(caught.value)
    assert pool_names(tmp_path / "cache") == []


class Malicious:
    """Unpickled carelessly, it would make a folder."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path, own_nets: None) -> None:
    path, target = tmp_path / "net.pth", tmp_path / "hacked"
    torch.save({"conv.weight": Malicious(target)}, path)
    refused(tmp_path, path, "is a pickle.*--allow-pickle")
    refused(tmp_path, path, "holds more than weights", allow_pickle=True)
    path.write_bytes(pickle.dumps(Malicious(target)))
    refused(tmp_path, path, "holds more than weights", allow_pickle=True)
    assert not target.exists()


def test_an_honest_pickle_of_weights(tmp_path: Path, own_nets: None) -> None:
    net = Small(3, 16)
    for content in (state(net), {"state_dict": state(net), "epoch": 3}):
        torch.save(content, tmp_path / "net.pth")
        import_checkpoint(tmp_path / "c", "mine", tmp_path / "net.pth", card(), allow_pickle=True)
    torch.save([1, 2], tmp_path / "net.pth")
    refused(tmp_path, tmp_path / "net.pth", "holds no state dict", allow_pickle=True)


def test_files_that_do_not_fit(tmp_path: Path, own_nets: None) -> None:
    path = tmp_path / "net.safetensors"
    whole = state(Small(3, 16))
    save_file({k: v for k, v in whole.items() if k != "bn.bias"}, path)
    refused(tmp_path, path, r"entry 'bn\.bias' is missing")
    save_file(whole | {"more": torch.zeros(1)}, path)
    refused(tmp_path, path, "entry 'more' is unknown")
    save_file(whole | {"conv.bias": torch.zeros(7)}, path)
    refused(tmp_path, path, r"'conv\.bias' has shape \(7,\), not \(6,\)")
    save_file(whole | {"conv.bias": torch.full((6,), torch.nan)}, path)
    refused(tmp_path, path, r"'conv\.bias' is not finite")
    path.write_bytes(b"<!DOCTYPE html>" * 40)
    refused(tmp_path, path, "is not a safetensors file")
    refused(tmp_path, tmp_path / "nowhere.safetensors", "is not there")


def test_a_flipped_byte_is_noticed_where_the_digest_is_known(
    tmp_path: Path, own_nets: None
) -> None:
    from bench.results.files import file_sha256

    path = saved(tmp_path / "net.safetensors")
    digest = file_sha256(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    refused(tmp_path, path, "was changed", sha256=digest.upper())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accuracy": 75}, "accuracy"),
        ({"class_names": ("a", "a", "b")}, "twice"),
        ({"std": (0.2, 0.0, 0.2)}, "above 0"),
        ({"architecture": "torchvision:resnet19"}, "resnet18"),
        ({"architecture": "keras:resnet50"}, "unknown family"),
        ({"architecture": "conv5"}, "conv4"),
        ({"architecture": "backwards"}, "does more after its last linear layer"),
        ({"class_names": ("a", "b")}, "has 3 outputs, 2 class names .* with --classes"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
    ],
)
def test_wrong_cards(tmp_path: Path, own_nets: None, changes: dict, expected: str) -> None:
    refused(tmp_path, saved(tmp_path / "net.safetensors"), expected, changes=changes)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("twoheads", "TwoHeads does not end in its last linear layer"),
        ("pair", "Pair does not end in its last linear layer"),
        ("nohead", "NoHead has no linear layer"),
    ],
)
def test_networks_without_one_head_are_refused(
    tmp_path: Path, own_nets: None, net: str, expected: str
) -> None:
    weights = registry.load("net", net)(3, 16)
    refused(tmp_path, saved(tmp_path / "net.safetensors", weights), expected, net=net)


def test_classes_are_names_or_a_file(tmp_path: Path) -> None:
    many = [f"the class of number {number}" for number in range(400)]
    assert class_names(", ".join(many)) == tuple(many)
    (tmp_path / "classes.txt").write_text("a, first\n\nb\n")
    assert class_names(str(tmp_path / "classes.txt")) == ("a, first", "b")
    with pytest.raises(BenchError, match=r"--classes 'classes.txt' .*No such file.*a,b,c"):
        class_names("classes.txt")
    with pytest.raises(BenchError, match="File name too long"):
        class_names("x" * 5000)


def test_a_failed_import_leaves_the_pool_as_it_was(tmp_path: Path, own_nets: None) -> None:
    cache = tmp_path / "cache"
    before = import_checkpoint(cache, "mine", saved(tmp_path / "a.safetensors"), card())
    (tmp_path / "b.safetensors").write_bytes(b"x")
    with pytest.raises(BenchError):
        import_checkpoint(cache, "mine", tmp_path / "b.safetensors", card())
    assert isinstance(load_pool(cache, "mine"), Pool)
    assert load_pool(cache, "mine").sha256 == before.sha256
    assert {path.name for path in (cache / "pools").iterdir()} <= {"mine", ".mine.lock"}
    with pytest.raises(BenchError, match="did you mean mine"):
        load_pool(cache, "mime")
    with pytest.raises(BenchError, match="small letters"):
        import_checkpoint(cache, "../mine", tmp_path / "a.safetensors", card())


def test_specs_of_imported_networks_build() -> None:
    net = build_net(NetSpec("torchvision:resnet18", 4, 32))
    assert net.head.out_features == 4
