"""Pools of every kind, through the methods: each runs, or is skipped with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import cell_of, run_toy, toy_data

MIXED = (
    "scenario=SH",
    "architectures=[conv4, resnet10]",
    "budget.max_teachers=2",
    "budget.meta_iterations=2",
    "budget.n_val_tasks=2",
    "n_test_tasks=4",
)
SHARING = ("protocol=pool100", "budget.max_teachers=4", "protocol.teachers_per_iteration=2")
FEW = ("budget.meta_iterations=2", "budget.n_val_tasks=2", "n_test_tasks=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache keeps the toy teachers."""
    return tmp_path_factory.mktemp("mixed")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("purer", None),
        ("random", None),
        ("best_teacher", None),
        ("teacher_centroids", None),
        ("ensemble_centroids", None),
        ("average", "needs teachers of one architecture; the pool has conv4, resnet10"),
    ],
)
def test_mixed_architectures(folder: Path, method: str, reason: str | None) -> None:
    stored = run_toy(cell_of(method, *MIXED), toy_data(), folder)
    assert (stored.record.status, stored.record.reason) == (
        ("done", None) if reason is None else ("skipped", reason)
    )
    if stored.record.pool:
        assert stored.record.pool.architectures == {"conv4": 1, "resnet10": 1}
        recipes = [teacher["architecture"] for teacher in stored.record.pool.teachers]
        assert recipes == ["conv4", "resnet10"]


def test_a_mixed_pool_without_the_meta_model_s_architecture(folder: Path) -> None:
    only_resnets = ("architectures=[resnet10]", "budget.max_teachers=1")
    settings = (*MIXED, *only_resnets)
    for method, words in (("best_teacher", "no teacher is a conv4"), ("average", "resnet10")):
        record = run_toy(cell_of(method, *settings), toy_data(), folder).record
        assert record.status == "skipped"
        assert words in record.reason
    settings = (*settings, "protocol.initialisation=average")
    record = run_toy(cell_of("purer", *settings), toy_data(), folder).record
    assert record.status == "failed"
    assert "use initialisation random" in record.reason


@pytest.mark.parametrize(
    "method",
    ["purer", "average", "best_teacher", "teacher_centroids", "ensemble_centroids"],
)
def test_teachers_that_share_classes(folder: Path, method: str) -> None:
    stored = run_toy(cell_of(method, *SHARING, *FEW), toy_data(), folder)
    assert stored.record.status == "done", stored.record.reason
    classes = [set(teacher["classes"]) for teacher in stored.record.pool.teachers]
    assert all(len(group) == 5 for group in classes)
    assert sum(map(len, classes)) > len(set.union(*classes)), "no class is shared"


def test_a_step_of_a_sharing_pool_inverts_the_teachers_drawn(folder: Path) -> None:
    """Two of four teachers a step, five classes each, six images a class, two steps."""
    record = run_toy(cell_of("purer", *SHARING, *FEW), toy_data(), folder).record
    assert record.cost.teacher_forward_images == 2 * 2 * 5 * 6


@pytest.mark.parametrize("method", ["purer", "average", "best_teacher", "ensemble_centroids"])
def test_a_teacher_with_fewer_classes_than_ways(folder: Path, method: str) -> None:
    """Seven classes make a teacher of five and one of two, both with five outputs."""
    stored = run_toy(cell_of(method, *FEW), toy_data(n_train=7), folder / "seven")
    assert stored.record.status == "done", stored.record.reason
    assert [len(t["classes"]) for t in stored.record.pool.teachers] == [5, 2]


@pytest.mark.parametrize("method", ["purer", "best_teacher", "ensemble_centroids"])
def test_images_of_84_pixels(folder: Path, method: str) -> None:
    one = ("budget.max_teachers=1", "budget.meta_iterations=1", "n_query=3")
    stored = run_toy(cell_of(method, *FEW, *one), toy_data(size=84, n_train=5), folder / "84")
    assert stored.record.status == "done", stored.record.reason
    if method != "ensemble_centroids":
        assert stored.record.cost.params == 32_901
