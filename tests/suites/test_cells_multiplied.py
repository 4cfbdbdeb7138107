"""Suites whose variants, calibrations, networks and settings multiply their cells."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.execute.plan import make_plan
from bench.suites.cell import select
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from tests.suites.test_cells import DIGESTS, cells

VARIANTS = """
title: two protocols
scenario: SS
datasets: [glyphs]
architectures: [conv4]
protocol: cvpr23_as_published
budget: micro
variants:
  - set: {task_list: frozen}
  - set: {task_list: frozen, selection: val}
  - set: {task_list: frozen, selection: test_max}
  - protocol: cvpr23
k_shot: [1, 5]
methods:
  - method: purer
  - method: average
"""


def test_variants_multiply_the_cells_and_name_themselves(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(VARIANTS)
    found = cells(str(suite))
    assert len(found) == 3 * 2 * 2, "two variants that come to the same are one"
    assert len({cell.hash(DIGESTS) for cell in found}) == len(found)
    names = list(dict.fromkeys((cell.protocol.name, cell.variant) for cell in found))
    assert names == [
        ("cvpr23_as_published", "task_list=frozen"),
        ("cvpr23_as_published", "selection=val, task_list=frozen"),
        ("cvpr23", ""),
    ]
    chosen = select(found, ["variant=selection=val, task_list=frozen", "method=purer"])
    assert [cell.protocol.selection for cell in chosen] == ["val", "val"]
    settled = cells(str(suite), "protocol.selection=last")
    assert {cell.protocol.selection for cell in settled} == {"last"}
    assert len(settled) == 2 * 2 * 2
    suite.write_text(VARIANTS.replace("selection: val", "selektion: val"))
    with pytest.raises(BenchError, match="selektion"):
        cells(str(suite))
    with pytest.raises(BenchError, match="variants"):
        cells("micro", "variants=[]")


CALIBRATED = """title: x
scenario: SS
datasets: [glyphs]
architectures: [conv4]
methods:
  - {method: average, learner: LEARNER, calibration: [none, icfil]}
"""


def test_calibrations_multiply_cells_and_take_settings(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(CALIBRATED.replace("LEARNER", "[maml, anil]"))
    found = cells(str(suite), "icfil.steps=7")
    assert [(c.learner, c.calibration) for c in found] == [
        ("maml", "none"),
        ("maml", "icfil"),
        ("anil", "none"),
        ("anil", "icfil"),
    ]
    assert [c.calibration_config.get("steps") for c in found] == [None, 7, None, 7]
    assert len({c.hash(DIGESTS) for c in found}) == 4
    plain, changed = cells(str(suite)), cells(str(suite), "icfil.temperature=0.5")
    differs = [a.calibration for a, b in zip(plain, changed, strict=True) if a != b]
    assert differs == ["icfil", "icfil"]
    assert [c.label for c in found][1].startswith("average · maml + icfil · glyphs")
    assert {c.calibration for c in select(found, ["calibration=icfil"])} == {"icfil"}


@pytest.mark.parametrize(
    ("learner", "calibration", "settings", "words"),
    [
        ("protonet", "icfil", [], ["icfil", "protonet", "no inner loop", "maml or anil"]),
        ("[maml, protonet]", "[none, icfil]", [], ["protonet", "no inner loop"]),
        ("maml", "icfill", [], ["icfill", "icfil"]),
        ("maml", "icfil", ["icfil.stesp=1"], ["stesp", "steps"]),
        ("maml", "icfil", ["icfil.temperature=0"], ["temperature", "0", "greater than 0"]),
        ("maml", "none", ["icfil.steps=1"], ["icfil.steps"]),
    ],
)
def test_wrong_calibrations_are_one_line(
    tmp_path: Path, learner: str, calibration: str, settings: list[str], words: list[str]
) -> None:
    suite = tmp_path / "mine.yaml"
    text = CALIBRATED.replace("LEARNER", learner).replace("[none, icfil]", calibration)
    suite.write_text(text)
    with pytest.raises(BenchError) as caught:
        cells(str(suite), *settings)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_cells_of_one_label_are_told_apart_by_what_differs(cache: Path, tmp_path: Path) -> None:
    """By a plan that is made, and by one that is remembered; nothing else changes."""
    path = tmp_path / "sizes.yaml"
    path.write_text(
        "title: sizes\ndatasets: [glyphs]\narchitectures: [conv4]\nbudget: micro\nmethods:\n"
        "  - {method: distill_ensemble, config: {steps: 4}}\n"
        "  - {method: distill_ensemble, config: {steps: 8}}\n"
        "  - {method: distill_ensemble, net: conv4_64, config: {steps: 8}}\n"
        "  - {method: average, learner: protonet}\n"
    )
    expected = [
        "distill_ensemble · centroids · glyphs 5-way 1-shot · seed 0 · net=conv4, steps=4",
        "distill_ensemble · centroids · glyphs 5-way 1-shot · seed 0 · net=conv4, steps=8",
        "distill_ensemble · centroids · glyphs 5-way 1-shot · seed 0 · net=conv4_64, steps=8",
        "average · protonet · glyphs 5-way 1-shot · seed 0",
    ]
    for _ in range(2):
        plan = make_plan(str(path), [], [], None, cache, None, {})
        assert [cell.label for cell in plan.cells] == expected
        assert [cell.label for cell in pickle.loads(pickle.dumps(plan.cells))] == expected
    chosen = make_plan(str(path), [], ["net=conv4_64"], None, cache, None, {}).cells
    assert [cell.label for cell in chosen] == expected[2:3]
    plain = expand(*read_suite(str(path)))
    assert [one.hash(plan.digests) for one in plain] == [c.hash(plan.digests) for c in plan.cells]
