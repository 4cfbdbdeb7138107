"""Users' own checkpoints: taken in with digest, or refused in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from bench import registry
from bench.cli.teachers import class_names
from bench.contract import Pool
from bench.errors import BenchError
from bench.teachers.checkpoint import import_checkpoint
from bench.teachers.transfer import load_pool
from tests.teachers.own_networks import (
    MEAN,
    STD,
    Small,
    card,
    images,
    refused,
    saved,
    state,
)


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
    refused(tmp_path, path, "holds more than weights: posix.mkdir; save", allow_pickle=True)
    path.write_bytes(pickle.dumps(Malicious(target)))
    other = r"or is damaged \(UnpicklingError: Unsupported operand \d+\); save"
    refused(tmp_path, path, other, allow_pickle=True)
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


def drawn() -> Small:
    net = Small(3, 16)
    net.load_state_dict(state(net))
    return net


@pytest.mark.parametrize("prefixes", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_are_taken_off_and_said(tmp_path: Path, own_nets: None, prefixes: str) -> None:
    net, lines = drawn(), []
    path = tmp_path / "net.safetensors"
    save_file({prefixes + name: value for name, value in net.state_dict().items()}, path)
    import_checkpoint(tmp_path / "c", "mine", path, card(), say=lines.append)
    assert lines == [
        f"net.safetensors: the prefix '{one}.' was taken off all names"
        for one in prefixes.split(".")[:-1]
    ]
    pool = load_pool(tmp_path / "c", "mine")
    torch.testing.assert_close(pool[0].net(images()), net.eval()(images()))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "state_dict_ema"])
def test_weights_are_found_beside_other_things(tmp_path: Path, own_nets: None, key: str) -> None:
    net = drawn()
    torch.save({"epoch": 3, "optimizer": {}, key: net.state_dict()}, tmp_path / "net.pth")
    import_checkpoint(tmp_path / "c", "mine", tmp_path / "net.pth", card(), allow_pickle=True)
    pool = load_pool(tmp_path / "c", "mine")
    torch.testing.assert_close(pool[0].net(images()), net.eval()(images()))


def test_batch_norm_of_old_versions_counts_no_batches(tmp_path: Path, own_nets: None) -> None:
    net, lines = drawn(), []
    path = tmp_path / "net.safetensors"
    save_file({k: v for k, v in net.state_dict().items() if not k.endswith("tracked")}, path)
    import_checkpoint(tmp_path / "c", "mine", path, card(), say=lines.append)
    assert len(lines) == 1
    pool = load_pool(tmp_path / "c", "mine")
    torch.testing.assert_close(pool[0].net(images()), net.eval()(images()))


def test_weights_that_no_network_can_use_are_named(tmp_path: Path, own_nets: None) -> None:
    path = tmp_path / "net.safetensors"
    whole = state(Small(3, 16))
    save_file(whole | {"bn.running_var": torch.full((6,), -0.5)}, path)
    refused(tmp_path, path, r"'bn\.running_var' has variances below 0; take an earlier checkpoint")
    save_file(whole | {"conv.weight": whole["conv.weight"] * 1e38 * 1e3}, path)
    refused(tmp_path, path, "not finite")
    save_file(whole | {"bn.weight": torch.full((6,), 3e38)}, path)
    refused(tmp_path, path, "gives numbers that are not finite; its weights are too large")


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
        ({"std": (0.2, 0.0, 0.2)}, "0 is no deviation of pixels in 0 to 1"),
        ({"std": (58.395, 57.12, 57.375)}, r"divide by 255: 0\.229, 0\.224, 0\.225"),
        ({"mean": (-0.1, 0.5, 0.5)}, "-0.1 is no mean of pixels in 0 to 1"),
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
    (tmp_path / "classes.txt").write_text("a\r\nb\r\n", encoding="utf-8-sig")
    assert class_names(str(tmp_path / "classes.txt")) == ("a", "b")
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
    assert {path.name for path in (cache / "pools").iterdir()} <= {"mine"}
    with pytest.raises(BenchError, match="did you mean mine"):
        load_pool(cache, "mime")
    with pytest.raises(BenchError, match="small letters"):
        import_checkpoint(cache, "../mine", tmp_path / "a.safetensors", card())
