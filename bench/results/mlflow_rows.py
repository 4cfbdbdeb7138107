"""Many records at once into an MLflow store that is an SQLite file, as the rows that MLflow writes.

By MLflow's own calls a record takes eight transactions, and a thousand take minutes. Here a hundred
take one. Where the tables are not those that are known here, or there is no such file, nothing is
written, and MLflow's calls do it all. Nothing here needs mlflow.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bench.results.mlflow_store import VERSION, version_of
from bench.results.mlflow_view import (
    Point,
    artifacts,
    curve_points,
    data_sets,
    final_tags,
    milliseconds,
    parameters,
    run_name,
    summary_points,
    system_points,
    tags,
)

if TYPE_CHECKING:
    from bench.results.mlflow import Tracker
    from bench.results.store import StoredRecord

AT_ONCE = 100
"""Records of one transaction."""
TABLES = {
    "runs": (
        *("run_uuid", "experiment_id", "name", "status", "start_time", "end_time", "artifact_uri"),
        *("source_type", "source_name", "source_version", "entry_point_name", "user_id"),
        "lifecycle_stage",
    ),
    "tags": ("run_uuid", "key", "value"),
    "params": ("run_uuid", "key", "value"),
    "metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "latest_metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "datasets": (
        *("dataset_uuid", "experiment_id", "name", "digest"),
        *("dataset_source_type", "dataset_source"),
    ),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id"),
    "input_tags": ("input_uuid", "name", "value"),
}
"""The columns that are written; of all others each table must have a value of its own."""
_ABOUT_A_RUN = ("UNKNOWN", "", "", "", "unknown", "active")
Rows = dict[str, list[tuple[object, ...]]]


def ingest_new(tracker: Tracker, stored: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Write the records of which the store has no run, and return the others, for `ingest`.

    Args:
        tracker: of the store.
        stored: records in the order in which they began.
    """
    left: list[StoredRecord] = []
    for start in range(0, len(stored), AT_ONCE):
        part = stored[start : start + AT_ONCE]
        written = {one.folder for one in _ingest_part(tracker, part)}
        left += [one for one in part if one.folder not in written]
    return left


def _ingest_part(tracker: Tracker, stored: Sequence[StoredRecord]) -> list[StoredRecord]:
    store = tracker.store
    if store.database is None:
        return []
    with (
        tracker.store.alone(),
        contextlib.closing(sqlite3.connect(store.database, timeout=20)) as connection,
    ):
        place = _artifact_folder(connection, tracker.experiment)
        if place is None or not _knows_tables(connection):
            return []
        shown = set(_shown(connection, tracker.experiment, store.folder_tags()))
        new = [one for one in stored if (one.record.suite, one.record.cell_hash) not in shown]
        begun = [(one.record.suite, milliseconds(one.record.started)) for one in new]
        parents = [tracker.parent(*each).info.run_id for each in begun]
        writer = _Writer(connection, tracker.experiment, place, store.folder_tags())
        with connection:
            written = [one for one, run in zip(new, parents, strict=True) if writer.add(one, run)]
            writer.write()
        for one in written:
            store.mark(one)
    return written


def _artifact_folder(connection: sqlite3.Connection, experiment: str) -> str | None:
    """Return the address of the experiment's artifacts; None where it is no local folder."""
    query = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
    (place,) = connection.execute(query, (experiment,)).fetchone()
    parts = urlsplit(place)
    is_local = parts.scheme == "file" and not parts.netloc and os.name == "posix"
    return place if is_local else None


def _knows_tables(connection: sqlite3.Connection) -> bool:
    """Tell whether the tables have the columns that are written, and need no others."""
    for table, ours in TABLES.items():
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        needed = {name for _, name, _, needs, default, _ in columns if needs and default is None}
        if not needed <= set(ours) <= {name for _, name, *_ in columns}:
            return False
    return True


def _shown(
    connection: sqlite3.Connection, experiment: str, folder: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield suite and hash of the cells of which the store has runs of this folder."""
    query = (
        "SELECT suites.value, cells.value FROM runs"
        " JOIN tags suites ON suites.run_uuid = runs.run_uuid AND suites.key = 'suite'"
        " JOIN tags cells ON cells.run_uuid = runs.run_uuid AND cells.key = 'cell_hash'"
    )
    words: list[str] = []
    for number, (key, value) in enumerate(folder.items()):
        query += (
            f" JOIN tags f{number} ON f{number}.run_uuid = runs.run_uuid"
            f" AND f{number}.key = ? AND f{number}.value = ?"
        )
        words += [key, value]
    query += " WHERE runs.experiment_id = ? AND runs.lifecycle_stage = 'active'"
    yield from connection.execute(query, [*words, experiment])


class _Writer:
    """The rows of records, and the copies of their files.

    Args:
        connection: to the store.
        experiment: the number of the experiment.
        place: the address of its artifacts.
        own: tags that each run has.
    """

    def __init__(
        self, connection: sqlite3.Connection, experiment: str, place: str, own: Mapping[str, str]
    ) -> None:
        self._connection, self._experiment = connection, int(experiment)
        self._place, self._own = place, own
        self._rows: Rows = {table: [] for table in TABLES}
        known = "SELECT name, digest, dataset_uuid FROM datasets WHERE experiment_id = ?"
        found = connection.execute(known, (self._experiment,))
        self._sets = {(name, digest): number for name, digest, number in found}

    def add(self, stored: StoredRecord, parent: str) -> bool:
        """Add a record below the run of its suite, and copy its files.

        Returns:
            Whether it could be read; why not is said by who tries next.
        """
        record, run = stored.record, uuid.uuid4().hex
        try:
            points = [*summary_points(record), *curve_points(stored), *system_points(stored)]
        except Exception:
            return False
        uri = f"{self._place}/{run}/artifacts"
        _copy(artifacts(stored.folder), Path(unquote(urlsplit(uri).path)))
        name, status = run_name(record), "FAILED" if record.status == "failed" else "FINISHED"
        times = milliseconds(record.started), milliseconds(record.ended)
        about = (run, self._experiment, name, status, *times, uri, *_ABOUT_A_RUN)
        self._rows["runs"].append(about)
        shown = tags(record) | {"mlflow.parentRunId": parent, **self._own} | final_tags(record)
        shown |= {VERSION: version_of(stored), "mlflow.runName": name}
        self._rows["tags"] += [(run, *pair) for pair in shown.items()]
        self._rows["params"] += [(run, *pair) for pair in sorted(parameters(record).items())]
        self._rows["metrics"] += (rows := [(run, *_columns(one)) for one in dict.fromkeys(points)])
        self._rows["latest_metrics"] += _latest(rows)
        for one in data_sets(record):
            self._add_data_set(run, *one)
        return True

    def _add_data_set(self, run: str, name: str, digest: str, source: str, use: str) -> None:
        key, new, link = (name, digest[:36]), uuid.uuid4().hex, uuid.uuid4().hex
        if self._sets.setdefault(key, new) == new:
            self._rows["datasets"].append((new, self._experiment, *key, "purer-bench", source))
        self._rows["inputs"].append((link, "DATASET", self._sets[key], "RUN", run))
        self._rows["input_tags"].append((link, "mlflow.data.context", use))

    def write(self) -> None:
        """Write all that was added."""
        for table, columns in TABLES.items():
            marks = ", ".join("?" * len(columns))
            command = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            self._connection.executemany(command, self._rows[table])


def _columns(point: Point) -> tuple[object, ...]:
    """Return a point's columns; a table holds neither NaN nor infinite numbers."""
    name, value, timestamp, step = point
    is_nan = math.isnan(value)
    largest = sys.float_info.max
    kept = 0.0 if is_nan else min(max(value, -largest), largest)
    return name, kept, timestamp, step, is_nan


def _latest(rows: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return the last row of each metric: by step, then time, then value."""
    found: dict[object, tuple[object, ...]] = {}
    for row in sorted(rows, key=lambda row: (row[4], row[3], row[2])):
        found[row[1]] = row
    return list(found.values())


def _copy(files: Iterable[tuple[Path, str | None]], folder: Path) -> None:
    for path, inner in files:
        target = folder / (inner or "") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
