"""Records that are written at once are, row by row, what MLflow's own calls write."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from bench.cli.ingest import write_all
from bench.results.files import write_parquet
from bench.results.find import find_records
from bench.results.mlflow import Tracker
from bench.results.mlflow_rows import TABLES, ingest_new
from bench.results.mlflow_store import DATABASE, MARK, Store
from bench.results.store import CURVE, StoredRecord

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def runs(empty_store: Path, tmp_path: Path) -> Path:
    """A store without runs, and three records; one has a curve with numbers of all kinds."""
    folder = tmp_path / "some where"
    folder.mkdir()
    shutil.copy(empty_store, folder / DATABASE)
    for path in sorted(RESULTS.glob("glyphs/*"))[:3]:
        shutil.copytree(path, folder / "glyphs" / path.name)
    values = np.array([np.nan, np.inf, -np.inf, 1.5, 1.5])
    columns = {"step": np.array([2, 1, 1, 0, 0]), "name": ["loss"] * 5, "value": values}
    write_parquet(folder / "glyphs" / path.name / CURVE, columns)
    return folder


def rows(runs: Path) -> dict[str, list[str]]:
    """Return all rows of the tables that are written, with names in the place of random numbers."""
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as connection:
        tags = connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'cell_hash'")
        names = dict(tags.fetchall())
        for table, column, name in (
            ("inputs", "input_uuid", "destination_id"),
            ("datasets", "dataset_uuid", "name"),
        ):
            found = connection.execute(f"SELECT {column}, {name} FROM {table}").fetchall()
            names |= {number: f"{table} of {names.get(what, what)}" for number, what in found}
        parents = connection.execute("SELECT run_uuid FROM tags WHERE value = 'suite'")
        names |= {number: "parent" for (number,) in parents}
        contents = {}
        for table in TABLES:
            text = [repr(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for number, name in names.items():
                text = [row.replace(number, name) for row in text]
            contents[table] = sorted(row.replace(runs.as_uri(), "RUNS") for row in text)
    return contents


def in_order(runs: Path) -> list[StoredRecord]:
    return sorted(find_records(runs), key=lambda one: one.record.started)


def files(runs: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in runs.glob("mlartifacts/**/*") if path.is_file())


def test_rows_are_those_of_mlflows_calls(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "by calls")
    by_calls = Tracker(Store(tmp_path / "by calls"))
    assert all(by_calls.ingest(one) for one in in_order(by_calls.store.runs))
    at_once = Tracker(Store(runs))
    assert ingest_new(at_once, in_order(runs)) == []
    found = rows(runs)
    assert len(found["runs"]) == 4
    assert all(found.values())
    assert found == rows(tmp_path / "by calls")
    assert files(runs) == files(tmp_path / "by calls") != []
    assert Store(runs).pending(find_records(runs)) == []
    for run in at_once.runs("tags.kind = 'cell'"):
        listed = at_once.client.list_artifacts(run.info.run_id)
        assert "record.json" in {one.path for one in listed}


def test_what_the_store_shows_already_is_left(runs: Path) -> None:
    tracker, stored = Tracker(Store(runs)), find_records(runs)
    tracker.ingest(stored[1])
    (stored[1].folder / MARK).unlink()
    (stored[2].folder / MARK).write_text("torn")
    assert ingest_new(tracker, stored) == [stored[1]]
    before = rows(runs)
    assert write_all(tracker, stored) == (0, "")
    assert {**rows(runs), "runs": 0} == {**before, "runs": 0}  # the suite's run has got its end


def test_a_failure_writes_nothing_and_a_later_try_all(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, stored = Tracker(Store(runs)), find_records(runs)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("bench.results.mlflow_rows.shutil.copyfile", full)
        written, problem = write_all(tracker, stored)
    assert written == 0
    assert "No space left on device" in problem
    assert tracker.runs("tags.kind = 'cell'") == []
    assert write_all(tracker, stored) == (3, "")


def test_a_store_of_unknown_tables_is_left_to_mlflow(runs: Path) -> None:
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as connection, connection:
        connection.execute("ALTER TABLE params ADD COLUMN new VARCHAR(3) NOT NULL DEFAULT 'x'")
    tracker, stored = Tracker(Store(runs)), find_records(runs)
    assert ingest_new(tracker, stored[:1]) == []
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as connection, connection:
        connection.execute("ALTER TABLE input_tags RENAME COLUMN value TO other")
    assert ingest_new(tracker, stored[1:]) == stored[1:]


def test_a_store_of_many_folders_shows_each_ones_records(runs: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs, tmp_path / "other"))
    (other / DATABASE).unlink()
    uri = f"sqlite:///{runs / DATABASE}"
    for folder in (runs, other):
        tracker = Tracker(Store(folder, uri))
        assert write_all(tracker, find_records(folder)) == (3, "")
        assert len(tracker.runs("tags.kind = 'cell'")) == 3
        assert ingest_new(tracker, stored := find_records(folder)) == stored
