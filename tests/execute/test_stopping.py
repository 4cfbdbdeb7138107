"""Cells that are asked to end anywhere and run again: the same records, and lines that say so."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.checkpoints import Keeping
from bench.cli.main import main
from bench.execute.cell import run_cell
from bench.execute.progress import PROGRESS
from bench.execute.state import RunState
from bench.results.store import StoredRecord, is_finished, read_record
from bench.stops import Stopped
from bench.suites.cell import Cell
from tests.helpers import StopAfter, cell_of, run_toy, toy_data

DATA = toy_data()
WAITS = (1, 2, 4, 3, 7)
"""Looks for a request until one comes, slot after slot."""


def run_in_slots(cell: Cell, folder: Path, waits: Iterator[int]) -> tuple[StoredRecord, list[str]]:
    """Run a cell in processes' stead, each ended after some looks; return what each kept."""
    kept: list[str] = []
    while True:
        state = RunState(
            "toy",
            folder / "runs",
            folder / "cache",
            torch.device("cpu"),
            {"glyphs": DATA},
            "bench run",
            keeping=Keeping(stop=StopAfter(next(waits))),
        )
        try:
            return read_record(run_cell(cell, state)), kept
        except Stopped as stopped:
            kept.append(stopped.kept)
            assert len(kept) < 300


def turns() -> Iterator[int]:
    while True:
        yield from WAITS


def icfil(cell: Cell) -> Cell:
    config = {"inversion_steps": 1, "steps": 1}
    return cell.model_copy(update={"calibration": "icfil", "calibration_config": config})


@pytest.mark.parametrize("kind", ["average", "ensemble_centroids", "average + icfil", "purer"])
def test_slots_end_in_the_record_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Ended while teachers train, in the fit, in validation and among the test tasks."""
    monkeypatch.setattr("bench.execute.evaluate.TASKS_PER_CHUNK", 3)
    method, _, calibration = kind.partition(" + ")
    cell = icfil(cell_of(method)) if calibration else cell_of(method)
    whole = run_toy(cell, DATA, tmp_path / "whole")
    again, kept = run_in_slots(cell, tmp_path / "slots", turns())
    assert whole.record.status == again.record.status == "done", again.record.reason
    assert any(one.startswith("teacher ") for one in kept)
    assert any(one.startswith("test of ") for one in kept)
    assert any(one.startswith("fit of ") for one in kept) == (method == "purer")
    np.testing.assert_array_equal(again.accuracies(), whole.accuracies())
    assert again.record.fit is not None
    assert whole.record.fit is not None
    assert again.record.fit.sha256 == whole.record.fit.sha256
    assert not again.record.fit.reused
    assert not list(again.folder.glob(".fitted"))
    assert again.record.cost == whole.record.cost
    assert again.record.pool == whole.record.pool
    assert is_finished(again.folder)
    assert not list(again.folder.glob("checkpoint-*"))
    assert not (again.folder / PROGRESS).exists()
    assert "kept" in (again.folder / "log.txt").read_text(encoding="utf-8")


def test_embeddings_too_many_to_keep_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.execute.testing.MOST_EMBEDDINGS", 10)
    monkeypatch.setattr("bench.execute.evaluate.TASKS_PER_CHUNK", 3)
    cell = cell_of("ensemble_centroids")
    whole = run_toy(cell, DATA, tmp_path / "whole")
    again, kept = run_in_slots(cell, tmp_path / "slots", iter([*[9] * 30, *[100] * 3]))
    assert not any(one.startswith("test of ") for one in kept)
    np.testing.assert_array_equal(again.accuracies(), whole.accuracies())


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130)])
def test_a_signal_ends_the_command_with_its_status_and_a_line(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    status: int,
) -> None:
    """The signal comes while the first cell is under way; nothing is said of a traceback."""

    def interrupted(cell: Cell, state: RunState) -> Path:
        os.kill(os.getpid(), getattr(signal, name))
        state.keeping.stop.check("fit of it, step 3")
        raise AssertionError("the request was not noticed")

    monkeypatch.setattr("bench.execute.cell.run_cell", interrupted)
    words = ["run", "micro", "--no-mlflow", f"--cache={cache}", f"--runs={tmp_path}"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--only=method=random"])
    assert end.value.code == status
    assert capsys.readouterr().err.strip() == (
        f"interrupted: kept fit of it, step 3; 0 of 1 cells are finished in {tmp_path}/micro; "
        "run the same command again to go on"
    )
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path), "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], len(row["left"])) == ("run", 1)


def test_the_interval_of_checkpoints_reaches_the_cells(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(cell: Cell, state: RunState) -> Path:
        seen.append(state.keeping.every)
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("bench.execute.cell.run_cell", noted)
    words = ["run", "micro", "--no-mlflow", f"--cache={cache}", f"--runs={tmp_path}"]
    for more in ([], ["--checkpoint-every=7"]):
        with pytest.raises(SystemExit):
            main([*words, "--only=method=random", *more])
    assert seen == [120.0, 7.0]


def test_a_worker_begins_nothing_once_the_end_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.execute import dask
    from bench.execute.plan import Request
    from bench.execute.sharing import Ended, Unit
    from bench.execute.worker import Setup

    monkeypatch.setattr(dask, "_STATES", {})
    setup = Setup("suite", (), Request(tmp_path, tmp_path, None, {}, "cpu", 1, "bench"))
    unit = Unit(0, cell_of("random"))
    dask._request_stop("ours", signal.SIGTERM)
    assert dask._work(setup, unit, "ours") == Ended(unit, signum=signal.SIGTERM)
    assert not dask._stop_of("another's").requested
