"""How alike teachers are: what linear CKA is and is not, and that a run keeps it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bench.contract import Pool
from bench.nets.precision import computing_in
from bench.nets.similarity import linear_cka
from bench.results.record import check_hash
from bench.results.store import SIMILARITY
from bench.seeds import torch_generator
from bench.teachers.adapt import adapt_pool
from bench.teachers.similarity import (
    MIN_IMAGES,
    pool_similarity,
    stored_similarity,
)
from tests.helpers import cell_of, run_toy, tiny_pool, toy_data


def features(name: str, n: int = 60, d: int = 8) -> torch.Tensor:
    """Correlated features (n, d), not centred."""
    generator = torch_generator("similarity", name)
    mixed = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)
    return mixed + 3


def rotation(d: int = 8) -> torch.Tensor:
    square = torch.randn(d, d, generator=torch_generator("rotation"), dtype=torch.float64)
    return torch.linalg.qr(square).Q


def song(x: torch.Tensor, y: torch.Tensor) -> float:
    """HSIC as Song et al. write its unbiased estimator, with linear kernels, by loops of sums."""
    n = len(x)
    k, el = (one.double() @ one.double().T for one in (x, y))
    k.fill_diagonal_(0)
    el.fill_diagonal_(0)
    ones = torch.ones(n, dtype=torch.float64)
    middle = (ones @ k @ ones) * (ones @ el @ ones) / ((n - 1) * (n - 2))
    total = torch.trace(k @ el) + middle - 2 / (n - 2) * (ones @ k @ el @ ones)
    return float(total / (n * (n - 3)))


def test_it_is_the_ratio_of_unbiased_dependences():
    x, y = features("x"), features("y") + features("x")
    found = linear_cka([x, y])
    assert float(found[0, 1]) == pytest.approx(
        song(x, y) / np.sqrt(song(x, x) * song(y, y)), rel=1e-9
    )


def test_rotation_scale_and_shift_change_nothing():
    x, y = features("x").double(), features("y").double()
    moved = 0.01 * x @ rotation() - 7
    found = linear_cka([x, moved, y])
    assert float(found[0, 1]) == pytest.approx(1.0)
    assert float(found[0, 2]) == pytest.approx(float(found[1, 2]), abs=1e-12)


def test_it_is_symmetric_one_with_itself_and_follows_the_order():
    sets = [features(name) for name in "abc"]
    found = linear_cka(sets)
    assert torch.equal(found, found.T)
    assert found.diagonal().tolist() == pytest.approx([1.0] * 3)
    order = [2, 0, 1]
    torch.testing.assert_close(linear_cka([sets[i] for i in order]), found[order][:, order])


def test_unrelated_wide_features_do_not_look_alike():
    """With more features than images the biased estimate is near 1; this one is about 0."""
    found = linear_cka([features(f"wide {i}", n=40, d=300) for i in range(6)])
    off = found[~torch.eye(6, dtype=torch.bool)]
    assert float(off.abs().max()) < 0.3
    assert float(off.mean().abs()) < 0.05


def test_constant_features_are_like_nothing():
    found = linear_cka([torch.full((20, 3), 2.5), features("x", n=20)])
    assert found[0].tolist() == [0.0, 0.0]
    assert float(found[1, 1]) == pytest.approx(1.0)


def test_a_run_measures_a_pool_once_and_keeps_it_with_every_cell(tmp_path, monkeypatch):
    from bench.teachers import similarity

    data = toy_data()
    first = run_toy(cell_of("ensemble_centroids"), data, tmp_path)
    monkeypatch.setattr(similarity, "pool_similarity", lambda *args: pytest.fail("measured again"))
    second = run_toy(cell_of("average"), data, tmp_path)
    matrix = first.similarity()
    assert matrix.shape == (first.record.pool.n,) * 2
    assert np.array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 1).all()
    assert 0 < matrix[0, 1] < 1
    assert np.array_equal(second.similarity(), matrix)
    assert SIMILARITY in (first.folder / "DONE").read_text()
    assert check_hash(first.record) is check_hash(second.record) is True


@pytest.mark.parametrize("damage", ["empty", "half", "another number"])
def test_a_damaged_table_is_measured_again(tmp_path, damage):
    data, cpu = toy_data(), torch.device("cpu")
    pool = tiny_pool(["conv4"] * 3, 3, 16, torch_generator("pool"))
    matrix = stored_similarity(tmp_path, pool, [data], cpu)
    (path,) = tmp_path.rglob("*.json")
    intact = path.read_text()
    if damage == "another number":
        path.write_text(intact.replace("1.0", "0.9", 1))
    else:
        path.write_text(intact[: len(intact) // 2] if damage == "half" else "")
    assert path.read_text() != intact
    np.testing.assert_array_equal(stored_similarity(tmp_path, pool, [data], cpu), matrix)
    assert path.read_text() == intact


def test_it_is_measured_on_validation_images_alone(tmp_path):
    """Other training and test images change nothing; other validation images do."""
    data = toy_data()
    pool = tiny_pool(["conv4"] * 3, 3, 16, torch_generator("pool"))
    cpu = torch.device("cpu")
    found = pool_similarity(pool, [data], cpu)
    for name, same in (("train", True), ("test", True), ("val", False)):
        split = data.splits[name]
        swapped = dataclasses.replace(split, images=255 - split.images[::-1])
        other = dataclasses.replace(data, splits={**data.splits, name: swapped})
        assert torch.equal(pool_similarity(pool, [other], cpu), found) == same


def test_images_of_two_sizes_are_seen_at_the_larger(tmp_path):
    """As a pool of both sizes is made: only teachers of the smaller size resize by themselves."""
    small, large = toy_data(16), toy_data(48)
    teachers = [
        next(iter(tiny_pool(["conv4"], 3, side, torch_generator("pool", str(side)))))
        for side in (16, 48, 48)
    ]
    pool = adapt_pool(Pool(teachers, "p"), small.mean, small.std, 48)
    found = pool_similarity(pool, [small, large], torch.device("cpu"))
    assert found.shape == (3, 3)
    assert found.diagonal().tolist() == pytest.approx([1.0] * 3)


def test_it_is_measured_in_float32_whatever_the_cell_computes_in(tmp_path):
    """Cells of all precisions share the table; the first of them must not decide it."""
    data, cpu = toy_data(), torch.device("cpu")
    pool = tiny_pool(["conv4"] * 3, 3, 16, torch_generator("pool"))
    with computing_in("bfloat16", cpu):
        rounded = pool_similarity(pool, [data], cpu)
        found = stored_similarity(tmp_path, pool, [data], cpu)
    expected = stored_similarity(tmp_path / "other", pool, [data], cpu)
    np.testing.assert_array_equal(found, expected)
    assert not torch.equal(rounded, pool_similarity(pool, [data], cpu))


def test_too_few_images_or_teachers_have_none(tmp_path):
    data, cpu = toy_data(), torch.device("cpu")
    pool = tiny_pool(["conv4"] * 2, 3, 16, torch_generator("pool"))
    assert pool_similarity(pool, [data], cpu, MIN_IMAGES - 1) is None
    alone = tiny_pool(["conv4"], 3, 16, torch_generator("pool"))
    assert stored_similarity(tmp_path, alone, [data], cpu) is None
    assert not any(tmp_path.iterdir())


def test_a_record_without_the_table_has_none(tmp_path):
    stored = run_toy(cell_of("average"), toy_data(), tmp_path)
    (stored.folder / SIMILARITY).unlink()
    assert stored.similarity() is None
