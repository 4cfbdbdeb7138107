"""Pools in and out: what comes back is what went in; what was tampered with is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.errors import BenchError
from bench.teachers.cards import pool_names
from bench.teachers.transfer import export_pool, import_pool, load_pool
from tests.helpers import tiny_pool
from tests.teachers.own_networks import generator, images


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

    monkeypatch.setattr("bench.teachers.weights.parse_safetensors", parsed)
    with pytest.raises(BenchError, match=expected) as caught:
        import_pool(tmp_path / "cache", "mine", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert pool_names(tmp_path / "cache") == []
