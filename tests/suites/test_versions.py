"""Versions of plug-ins: 1 leaves every hash as it was, above 1 they are part of identities."""

from __future__ import annotations

from typing import Any

import pytest

from bench import registry
from bench.contract import NetSpec, TeacherRecipe
from bench.execute.fitting import fit_key
from bench.suites import cell as cells
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from bench.teachers.pool import TeacherSpec, plan_pool

DIGESTS = {"glyphs": "a" * 64}


def cell_of(method: str) -> Cell:
    """Return a cell of the micro suite."""
    return next(c for c in expand(*read_suite("micro")) if c.method == method)


def teacher() -> TeacherSpec:
    """Return the first teacher of a pool."""
    cell = cell_of("average")
    return plan_pool("glyphs", "d" * 64, 10, 16, ["conv4"], cell.budget, cell.protocol, 0)[0]


def identities(method: str) -> dict[str, Any]:
    """Return what names a cell, its fit and its teachers."""
    cell, kind = cell_of(method), registry.load("method", method)
    key = fit_key(kind, cell, NetSpec(cell.net, cell.n_way, 16), "p" * 64, "d" * 64)
    return {"cell": cell.hash(DIGESTS), "fit": key, "teacher": teacher().content}


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each version be asked for again."""
    monkeypatch.setattr(cells, "_identities", {})


@pytest.mark.parametrize(
    ("kind", "name", "changed"),
    [
        ("method", "purer", {"cell", "fit"}),
        ("learner", "maml", {"cell", "fit"}),
        ("net", "conv4", {"cell", "fit", "teacher"}),
        ("method", "average", set()),
        ("learner", "protonet", set()),
        ("net", "resnet18", set()),
        ("calibration", "icfil", set()),
    ],
)
def test_a_version_above_one_is_part_of_what_it_changes(
    kind: Any, name: str, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identities("purer")
    monkeypatch.setattr(registry.load(kind, name), "version", 2)
    monkeypatch.setattr(cells, "_identities", {})
    after = identities("purer")
    assert {part for part in before if before[part] != after[part]} == changed


def test_a_recipes_version_is_part_of_teachers_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identities("purer")
    monkeypatch.setattr(TeacherRecipe, "version", 2)
    after = identities("purer")
    assert before["teacher"] != after["teacher"]
    assert before["cell"] != after["cell"]


def test_a_calibrations_version_counts_where_it_calibrates(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of("purer").model_copy(update={"calibration": "icfil"})
    before = cell.hash(DIGESTS)
    monkeypatch.setattr(registry.load("calibration", "icfil"), "version", 2)
    monkeypatch.setattr(cells, "_identities", {})
    assert cell.hash(DIGESTS) != before


def test_networks_of_other_libraries_and_plain_classes_have_version_one() -> None:
    assert cells.versions_of([("net", "torchvision:resnet18"), ("net", "conv4")]) == {}
