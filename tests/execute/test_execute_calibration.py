"""A calibrated cell: the fit of its uncalibrated twin, another score, and a record that says so."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.execute.cell import run_cell
from bench.execute.plan import make_plan
from bench.execute.state import RunState
from bench.results.mlflow_view import parameters
from bench.results.store import read_record

SUITE = """title: with and without
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
n_test_tasks: 4
methods:
  - {method: average, calibration: [none, icfil]}
"""
SETTINGS = ["budget.teacher_epochs=1", "budget.max_teachers=2", "icfil.steps=2"]


def test_cells_with_and_without_share_a_fit_and_differ_in_score(
    cache: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(SUITE)
    plan = make_plan(str(suite), [*SETTINGS, "icfil.inversion_steps=2"], [], None, cache, None, {})
    place = RunState("mine", tmp_path / "runs", cache, torch.device("cpu"), plan.data, "bench")
    stored = [read_record(run_cell(cell, place)) for cell in plan.cells]
    plain, calibrated = (one.record for one in stored)
    assert [one.record.status for one in stored] == ["done", "done"], calibrated.reason
    assert (plain.calibration, calibrated.calibration) == ("none", "icfil")
    assert plain.calibration_config == {}
    assert calibrated.calibration_config["steps"] == 2
    assert (plain.fit.reused, calibrated.fit.reused) == (False, True)
    assert plain.fit.sha256 == calibrated.fit.sha256
    assert plain.task_list_sha256 == calibrated.task_list_sha256
    assert stored[0].accuracies().tolist() != stored[1].accuracies().tolist()
    assert calibrated.cost.macs_per_query_image == plain.cost.macs_per_query_image
    assert calibrated.cost.macs_adapt_per_task > 5 * plain.cost.macs_adapt_per_task
    assert parameters(calibrated)["icfil.steps"] == "2"
