"""MLflow while a cell is fitted: its run appears, grows, and becomes the one of its record."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.cli import mlflow_writer
from bench.cli.mlflow_writer import MlflowWriter
from bench.execute import progress
from bench.execute.cell import run_cell
from bench.execute.progress import PROGRESS, Progress, Standing, under_way
from bench.execute.state import RunState
from bench.results.curve_file import MOST_POINTS, CurveReader, CurveWriter, Thinning
from bench.results.files import read_parquet
from bench.results.mlflow import Tracker
from bench.results.mlflow_store import DATABASE, Store
from bench.results.store import CURVE, CURVE_POINTS, StoredRecord, read_record
from tests.helpers import cell_of, toy_data

SUITE = "toy"


class Watched:
    """A toy cell that runs in this process, and the writer that shows it at every step."""

    def __init__(self, folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(progress, "WRITE_EVERY", 0.0)
        monkeypatch.setattr(progress, "CURVE_EVERY", 0.0)
        monkeypatch.setattr(mlflow_writer, "SHOW_EVERY", 0.0)
        monkeypatch.setattr(mlflow_writer, "LOOK_EVERY", 3600.0)  # the test says when
        self.folder, self.runs = folder, folder / "runs"
        self.runs.mkdir()
        shutil.copy(store, self.runs / DATABASE)
        self.lines: list[str] = []

    def run(self, at_step: Callable[[MlflowWriter, Standing], None]) -> StoredRecord:
        """Run the cell and close the store; `at_step` is called within each step of its fit."""
        writer = MlflowWriter(Store(self.runs), SUITE, self.lines.append)
        writer.start()

        def show(standing: Standing) -> None:
            if standing.stage == "fit" and 1 < standing.done < 6:
                writer.look()
                at_step(writer, standing)

        data = {"glyphs": toy_data()}
        cpu, cache = torch.device("cpu"), self.folder / "cache"
        state = RunState(SUITE, self.runs, cache, cpu, data, "bench run", Progress(show))
        stored = read_record(
            run_cell(cell_of("oracle_protonet", "budget.oracle_iterations=8"), state)
        )
        writer.ingest(stored)
        writer.close([stored], None)
        return stored

    def cells(self) -> list[tuple[str, str, list[int]]]:
        """Return id, status and the steps of the validation curve of each cell's run."""
        tracker = Tracker(Store(self.runs))
        found = []
        for run in tracker.runs("tags.kind = 'cell'"):
            points = tracker.client.get_metric_history(run.info.run_id, "curve/val_accuracy")
            found.append((run.info.run_id, run.info.status, sorted(one.step for one in points)))
        return found


def validated(stored: StoredRecord) -> list[int]:
    """Return the steps at which a fit was validated, each once."""
    columns = read_parquet(stored.folder / CURVE)
    return sorted(set(map(int, columns["step"][columns["name"] == "val_accuracy"])))


def give_back_turn(writer: MlflowWriter) -> None:
    """Give back what a process that is killed no longer holds."""
    assert writer._turn is not None
    writer._turn.release()


@pytest.fixture
def watched(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, empty_store, monkeypatch)


def test_a_cell_is_shown_while_it_is_fitted(watched: Watched) -> None:
    seen = []
    stored = watched.run(lambda writer, standing: seen.append(watched.cells()))
    assert len(seen) >= 4
    assert all(len(cells) == 1 for cells in seen)
    ids, statuses, curves = zip(*(cells[0] for cells in seen), strict=True)
    assert (len(set(ids)), set(statuses)) == (1, {"RUNNING"})
    lengths = [len(curve) for curve in curves]
    assert lengths == sorted(set(lengths)), "the curve grows at every look"

    ((run_id, status, steps),) = watched.cells()
    assert (run_id, status) == (ids[0], "FINISHED")
    assert steps == validated(stored)
    tracker = Tracker(Store(watched.runs))
    run = tracker.client.get_run(run_id)
    assert run.data.metrics["accuracy"] == stored.record.scored.mean
    assert run.data.metrics["fit_steps_per_second"] > 0
    assert run.data.metrics["system/memory_bytes"] > 0
    samples = tracker.client.get_metric_history(run_id, "system/memory_bytes")
    assert len({one.timestamp for one in samples}) == len(samples)
    (suite,) = tracker.runs("tags.kind = 'suite'")
    assert (suite.info.status, suite.info.end_time) == ("FINISHED", run.info.end_time)
    assert not watched.lines
    assert not list(under_way(watched.runs))


def test_what_a_killed_process_left_is_closed_and_taken_up(watched: Watched) -> None:
    def kill(writer: MlflowWriter, standing: Standing) -> None:
        if standing.done == 4:
            give_back_turn(writer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched.run(kill)
    (path,) = watched.runs.glob(f"*/*/{PROGRESS}")
    ((run_id, status, steps),) = watched.cells()
    assert (status, len(steps)) == ("RUNNING", len(set(steps)))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process_started": 0.0}))

    seen = []
    stored = watched.run(lambda writer, standing: seen.append(watched.cells()))
    assert {(one[0][0], one[0][1]) for one in seen} == {(run_id, "RUNNING")}
    assert watched.cells() == [(run_id, "FINISHED", validated(stored))]


def test_a_killed_cell_that_is_not_run_again_is_closed(watched: Watched) -> None:
    def kill(writer: MlflowWriter, standing: Standing) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched.run(kill)
    Tracker(Store(watched.runs)).close_abandoned([])
    tracker = Tracker(Store(watched.runs))
    assert {run.info.status for run in tracker.runs("tags.suite = 'toy'")} == {"KILLED"}
    for run in tracker.runs("tags.kind = 'cell'"):
        assert run.info.end_time >= run.info.start_time


def test_a_store_that_fails_is_one_line_and_the_run_goes_on(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full\nwith a long trace")

    monkeypatch.setattr(Tracker, "ingest", fail)
    stored = watched.run(lambda writer, standing: None)
    assert stored.record.status == "done"
    assert watched.lines == [
        f"MLflow store {Store(watched.runs).shown}: disk full; the run goes on, and bench ingest "
        f"--runs {watched.runs} writes what is missing"
    ]
    assert Store(watched.runs).pending([stored]) == [stored]


def test_an_error_of_the_database_is_one_line_without_mlflow_s_traceback(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the disk is full: MLflow logs the traceback of what it passes on."""

    def break_store(writer: MlflowWriter, standing: Standing) -> None:
        if standing.done == 5:
            with contextlib.closing(sqlite3.connect(watched.runs / DATABASE)) as connection:
                connection.execute("DROP TABLE metrics")
                connection.commit()

    stored = watched.run(break_store)
    assert stored.record.status == "done"
    assert len(watched.lines) == 1
    assert "no such table: metrics" in watched.lines[0]
    assert capsys.readouterr().err == ""


def test_one_process_shows_what_runs_in_a_folder(watched: Watched) -> None:
    other = MlflowWriter(Store(watched.runs), SUITE, watched.lines.append)

    def look_twice(writer: MlflowWriter, standing: Standing) -> None:
        other.look()

    watched.run(look_twice)
    assert not other._live


def test_a_file_of_points_is_read_as_it_grows_and_when_it_begins_anew(tmp_path: Path) -> None:
    reader, writer = CurveReader(tmp_path), CurveWriter(tmp_path)
    assert reader.rows() == []
    writer.add([(1, "loss", 2.5), (2, "loss", float("nan"))], 10)
    first = reader.rows()
    assert first[0] == (1, "loss", 2.5)
    assert first[1][2] != first[1][2]
    with (tmp_path / CURVE_POINTS).open("a") as file:
        file.write('[3, "lo')
    assert reader.rows() == []
    with (tmp_path / CURVE_POINTS).open("a") as file:
        file.write('ss", 1.0]\n')
    assert reader.rows() == [(3, "loss", 1.0)]
    again = CurveWriter(tmp_path)
    again.add([(1, "loss", 2.5)], 10)
    assert reader.rows() == [(1, "loss", 2.5)]


@pytest.mark.parametrize("total", [1, 999, 1000, 1001, 60_000])
def test_a_curve_is_thinned_to_its_bound_and_a_rare_one_is_kept(total: int) -> None:
    rows = [(step, "loss", 0.0) for step in range(1, total + 1)]
    rare = [(step, "validation", 0.0) for step in range(500, total + 1, 500)]
    thinning = Thinning(total)
    halves = [row for half in (rows[: total // 3], rows[total // 3 :]) for row in thinning(half)]
    assert halves == list(Thinning(total)(rows))
    assert len(halves) <= MOST_POINTS + 1
    assert len(halves) == total or len(halves) > MOST_POINTS / 2
    assert list(thinning(rare)) == rare
