"""The MLflow store of a runs folder: made in one piece, asked what it holds, used by people."""

from __future__ import annotations

import contextlib
import errno
import json
import pydoc
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from click.testing import CliRunner

from bench import leases
from bench.cli.ingest import ingest, write_all
from bench.errors import BenchError
from bench.results.find import find_records
from bench.results.mlflow import Tracker
from bench.results.mlflow_store import DATABASE, MARK, Store, holds_runs
from bench.results.mlflow_view import VIEW_TAG

RESULTS = Path(__file__).parents[2] / "results"
N = 2


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A runs folder of two records and the store that shows them; copy it to change it."""
    runs = tmp_path_factory.mktemp("filled")
    shutil.copy(empty_store, runs / DATABASE)
    for path in sorted(RESULTS.glob("glyphs/*"))[:N]:
        shutil.copytree(path, runs / "glyphs" / path.name)
    assert write_all(Tracker(Store(runs)), find_records(runs)) == (N, "")
    return runs


@pytest.fixture
def runs(filled: Path, tmp_path: Path) -> Path:
    """A copy of the filled folder."""
    return Path(shutil.copytree(filled, tmp_path / "runs"))


def ingested(runs: Path) -> str:
    """Return what `bench ingest` prints, which must succeed."""
    result = CliRunner().invoke(ingest, ["--runs", str(runs)])
    assert result.exit_code == 0, result.output
    return result.output


def shown(runs: Path) -> set[str]:
    """Return the hashes of the cells that the store shows, each once."""
    found = [run.data.tags["cell_hash"] for run in Tracker(Store(runs)).runs("tags.kind = 'cell'")]
    assert len(found) == len(set(found))
    return set(found)


def hashes(runs: Path) -> set[str]:
    return {one.record.cell_hash for one in find_records(runs)}


def test_what_a_store_shows_of_a_record(runs: Path) -> None:
    tracker = Tracker(Store(runs))
    experiment = tracker.client.get_experiment(tracker.experiment)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags[VIEW_TAG])
    assert set(view["selectedColumns"][:2]) == {"metrics.`accuracy`", "metrics.`accuracy_ci95`"}
    assert tracker.store.ways_in()[1].startswith(
        f"http://127.0.0.1:5000/#/experiments/{tracker.experiment}/runs?workflowType="
    )
    records = {one.record.cell_hash: one.record for one in find_records(runs)}
    (suite,) = tracker.runs("tags.kind = 'suite'")
    for run in tracker.runs("tags.kind = 'cell'"):
        record = records[run.data.tags["cell_hash"]]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == suite.info.run_id
        assert run.data.metrics["accuracy"] == record.scored.mean
        assert run.data.metrics["accuracy_ci95"] == record.scored.ci95
        sets = {one.dataset.name: one for one in run.inputs.dataset_inputs}
        assert set(sets) == set(record.datasets)
        assert sets["glyphs"].dataset.digest == record.dataset_digests["glyphs"][:36]
        assert suite.info.start_time <= run.info.start_time <= run.info.end_time
        assert run.info.end_time <= suite.info.end_time
    starts = {run.info.start_time for run in tracker.runs("tags.kind = 'cell'")}
    ends = {run.info.end_time for run in tracker.runs("tags.kind = 'cell'")}
    assert (suite.info.start_time, suite.info.end_time) == (min(starts), max(ends))


def test_nothing_is_written_where_nothing_changed(runs: Path) -> None:
    ingested(runs)  # a folder that was copied gets the address of its artifacts
    before = (runs / DATABASE).read_bytes()
    assert f"0 of {N} records" in ingested(runs)
    assert (runs / DATABASE).read_bytes() == before


def empty(database: Path) -> None:
    database.write_bytes(b"")


def make_anew(database: Path) -> None:
    """As `mlflow ui` does where there is no store: complete, and without an experiment of ours."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for name in {name for (name,) in tables} - {"alembic_version", "experiments"}:
            connection.execute(f"DELETE FROM {name}")
        connection.execute("DELETE FROM experiments WHERE experiment_id > 0")
        connection.commit()


def leave_half_made(database: Path) -> None:
    """As an older version of this program left one that was killed while it made it."""
    database.unlink()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER NOT NULL)")
        connection.execute("CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL)")


@pytest.mark.parametrize("spoil", [empty, make_anew])
def test_a_store_without_runs_is_filled_again(runs: Path, spoil: Callable[[Path], object]) -> None:
    spoil(runs / DATABASE)
    assert f"{N} of {N} records" in ingested(runs)
    assert shown(runs) == hashes(runs)
    assert not [path for path in runs.iterdir() if path.name.startswith(f".{DATABASE}.")]


def test_a_damaged_store_is_kept_and_one_line_says_what_to_do(runs: Path) -> None:
    (runs / DATABASE).write_bytes(content := b"no database, but somebody's" * 400)
    with pytest.raises(BenchError, match=r"cannot be opened \(.*\); move mlflow.db away") as raised:
        Tracker(Store(runs))
    assert "\n" not in str(raised.value)
    assert (runs / DATABASE).read_bytes() == content


def test_a_run_that_was_deleted_in_the_page_is_written_again(runs: Path) -> None:
    tracker = Tracker(Store(runs))
    tracker.client.delete_run(tracker.runs("tags.kind = 'cell'")[0].info.run_id)
    assert f"1 of {N} records" in ingested(runs)
    assert shown(runs) == hashes(runs)


def test_a_folder_that_was_moved_keeps_its_artifacts(runs: Path, tmp_path: Path) -> None:
    runs.rename(moved := tmp_path / "else where")
    tracker = Tracker(Store(moved))
    tracker.client.delete_run(tracker.runs("tags.kind = 'cell'")[0].info.run_id)
    assert f"1 of {N} records" in ingested(moved)
    for run in tracker.runs("tags.kind = 'cell'"):
        assert run.info.artifact_uri.startswith(f"{moved.as_uri()}/mlartifacts/")
        listed = {one.path for one in tracker.client.list_artifacts(run.info.run_id)}
        assert {"record.json", "tasks.parquet"} <= listed
    assert not runs.exists()


@pytest.mark.parametrize("name", ["a%20b", "a%20b/runs", "a?b", "a b#c", "été"])
def test_a_store_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / "a b").mkdir(exist_ok=True)
    store = Store(tmp_path / name)

    def open_at(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)  # as MLflow
        engine = sqlalchemy.create_engine(uri)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS runs (name TEXT)")
        engine.dispose()

    store.opened(open_at)
    assert store.database == tmp_path / name / DATABASE
    found = [path for path in tmp_path.rglob("*") if not (path.is_dir() and [*path.iterdir()])]
    assert sorted(found) == sorted([tmp_path / "a b", store.database])
    (another := Path(store.uri.removeprefix("sqlite:///")).parent).mkdir(
        parents=True, exist_ok=True
    )
    store.opened(open_at)
    assert another.is_dir()
    assert Store(tmp_path, store.uri).database == store.database


def test_an_experiment_that_was_deleted_in_the_page_is_restored(runs: Path) -> None:
    tracker = Tracker(Store(runs))
    tracker.client.delete_experiment(tracker.experiment)
    assert shown(runs) == hashes(runs)


def test_a_record_that_changed_replaces_its_run(runs: Path) -> None:
    first = find_records(runs)[0]
    path = first.folder / "record.json"
    path.write_text(path.read_text().replace('"warnings": [', '"warnings": ["new"', 1))
    assert len(Store(runs).pending(find_records(runs))) == 1
    assert f"1 of {N} records" in ingested(runs)
    assert shown(runs) == hashes(runs)


@pytest.mark.parametrize("where", ["create_run", "log_batch", "log_inputs", "set_terminated"])
def test_a_kill_within_a_record_leaves_what_is_completed(
    runs: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = find_records(runs)
    tracker = Tracker(Store(runs))
    for run in tracker.cells()[stored[1].record.suite, stored[1].record.cell_hash]:
        tracker.client.delete_run(run.info.run_id)
    (stored[1].folder / MARK).unlink()

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tracker.client, where, kill)
        with pytest.raises(Killed):
            tracker.ingest(stored[1])
    assert Store(runs).pending(stored) == [stored[1]]
    assert "1 of 2 records" in ingested(runs)
    assert shown(runs) == hashes(runs)
    for run in Tracker(Store(runs)).runs("tags.kind = 'cell'"):
        assert run.info.status == "FINISHED"
        assert {"method", "k_shot", "seed"} <= run.data.params.keys()
        assert run.data.metrics.keys() >= {"accuracy", "accuracy_ci95"}
        assert run.inputs.dataset_inputs


class Kill(BaseException):
    """A kill: from then on the process does nothing."""


class Process:
    """Makes a store as MLflow does, one table after another, and may be killed at any step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None):
        self.step, self.killed_at = 0, killed_at
        for target in ("os.fsync", "sync_folder", "Path.replace", "Path.unlink"):
            owner, _, name = f"bench.results.mlflow_store.{target}".rpartition(".")
            original = pydoc.locate(f"{owner}.{name}")
            monkeypatch.setattr(f"{owner}.{name}", self.may_die_before(original))

    def may_die_before(self, original: Any) -> Callable[..., Any]:
        def called(*words: Any, **named: Any) -> Any:
            self.may_die()
            return original(*words, **named)

        return called

    def may_die(self) -> None:
        self.step += 1
        if self.killed_at is not None and self.step >= self.killed_at:
            raise Kill

    def open_at(self, uri: str) -> str:
        """Open a store; like MLflow's, one that is half-made cannot be."""
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if names and names != set(TABLES):
                raise sqlite3.OperationalError("table experiments already exists")
            for table in TABLES if not names else ():
                self.may_die()
                connection.execute(f"CREATE TABLE {table} (name TEXT)")
        return uri


TABLES = ("experiments", "runs", "alembic_version")


@pytest.mark.parametrize("start", [Path.unlink, empty, leave_half_made])
def test_a_kill_at_any_step_leaves_no_store_or_a_complete_one(
    tmp_path: Path, start: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    killed = 0
    for step in range(1, 50):
        (tmp_path / DATABASE).touch()
        start(tmp_path / DATABASE)
        try:
            with monkeypatch.context() as patch:
                store.opened(Process(patch, step).open_at)
            break
        except Kill:
            killed += 1
        assert holds_runs(tmp_path / DATABASE) is False
        with monkeypatch.context() as patch:
            store.opened(Process(patch).open_at)
        assert {path.name for path in tmp_path.iterdir()} == {DATABASE}
    assert killed >= len(TABLES) + 4


def test_a_store_with_runs_is_never_made_again(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.execute("INSERT INTO runs VALUES ('mine')")
        connection.commit()
    before = (tmp_path / DATABASE).read_bytes()

    def refuse(uri: str) -> None:
        raise ValueError(uri)

    with pytest.raises(ValueError, match=DATABASE):
        Store(tmp_path).opened(refuse)
    assert (tmp_path / DATABASE).read_bytes() == before


def test_a_full_disk_leaves_no_store_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bench.results.mlflow_store.os.fsync", full)
    monkeypatch.setattr(Tracker, "_open", lambda self, uri: Path(uri[10:]).touch())
    with pytest.raises(BenchError, match="No space left on device"):
        Tracker(Store(tmp_path))
    assert not (tmp_path / DATABASE).exists()


def test_two_folders_that_share_a_store_write_one_after_the_other(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is made once: who comes second waits, instead of deleting what is half made."""
    shutil.copy(empty_store, tmp_path / "team.db")
    uri, waited = f"sqlite:///{tmp_path / 'team.db'}", list[float]()
    with contextlib.ExitStack() as first:
        first.enter_context(Store(tmp_path / "a", uri).alone())
        monkeypatch.setattr(leases.time, "sleep", lambda s: first.close() or waited.append(s))
        Tracker(Store(tmp_path / "b", uri))
    assert waited == [leases.LOOK_EVERY]


def test_another_store_is_another_place_and_its_password_is_not_shown(runs: Path) -> None:
    stored = find_records(runs)
    server = Store(runs, "https://me:secret@host:5000/mlflow")
    assert Store(runs).pending(stored) == []
    assert server.pending(stored) == stored
    assert server.shown == "https://host:5000/mlflow"
    assert "secret" not in server.ingest_command + server.cannot_be_opened(OSError("no"))
    server.mark(stored[0])
    assert server.pending(stored) == stored[1:]
    assert Store(runs).pending(stored) == stored[:1]
    assert "secret" not in (stored[0].folder / MARK).read_text()
    assert server.folder_tags() == Store(runs, "sqlite:////x").folder_tags() != {}
