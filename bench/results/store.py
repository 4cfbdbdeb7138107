"""Where records lie: the files of a cell, how a finished one is told, and what a record's hold."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.results.files import (
    check_parquet,
    file_sha256,
    read_parquet,
    sync_folder,
    write_json,
    write_parquet,
)
from bench.results.migrations import NewerRecordError, parse_record
from bench.results.record import Record

DONE = "DONE"
RECORD = "record.json"
CONFIG = "config.json"
ARTIFACTS = "mlartifacts"
"""The folder, below one of runs, where the MLflow store keeps copies of their files."""
TASKS = "tasks.parquet"
PREDICTIONS = "predictions.parquet"
PREDICTION_COLUMNS = ("predicted", "true", "margin")
CURVE = "curve.parquet"
CURVE_COLUMNS = ("step", "name", "value")
CURVE_POINTS = ".curve.jsonl"
"""The points of curves of a cell under way (`bench/results/curve_file.py`)."""
SIMILARITY = "similarity.parquet"


def write_tasks(path: Path, accuracies: np.ndarray, classes: np.ndarray | None = None) -> None:
    """Write the task table: `task` (int32), `accuracy` (float64), `class_0` … (int32).

    Args:
        path: the file.
        accuracies: (n,) fractions.
        classes: (n, n_way) which classes of the test split each task is made of; kept, so that
            an interval over classes needs neither the data nor the code that drew the tasks.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    columns: dict[str, np.ndarray] = {"task": np.arange(len(values), dtype=np.int32)}
    columns["accuracy"] = values
    if classes is not None:
        members = np.asarray(classes, dtype=np.int32).T
        columns |= {f"class_{way}": column for way, column in enumerate(members)}
    write_parquet(path, columns)


def mark_done(folder: Path) -> None:
    """Write `DONE`, last of all: the SHA-256 of every file that belongs to the finished cell."""
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name != DONE and p.name[0] != "."
    )
    write_json(folder / DONE, {str(p.relative_to(folder)): file_sha256(p) for p in files})


def damage(folder: Path) -> str | None:
    """Return what is wrong with a finished cell's files, or None where all have their digests."""
    try:
        digests = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it is not finished: {DONE} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{DONE} is damaged"
    if not isinstance(digests, dict) or not digests:
        return f"{DONE} names no file"
    for name, digest in digests.items():
        try:
            intact = file_sha256(folder / name) == digest
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if not intact:
            return f"{name} has changed since the cell was finished"
    return None


def is_finished(folder: Path) -> bool:
    """Tell whether a folder is complete: `DONE` is there and every file has its digest."""
    return damage(folder) is None


FINAL = ("done", "skipped", "newer")
"""States of a cell that a run leaves as they are."""


class CellState(NamedTuple):
    """What there is of a cell, and what is wrong with it, if anything.

    `name` is the record's status (`done`, `skipped`, `failed`), `to do` (no folder), `started` (not
    finished), `damaged`, or `newer` (a record that this version cannot read, nor may replace).
    `stored` is the record where the name is its status.
    """

    name: str
    problem: str = ""
    stored: StoredRecord | None = None


def cell_state(folder: Path) -> CellState:
    """Return what there is of the cell of a folder."""
    if not folder.is_dir():
        return CellState("to do")
    if not (folder / DONE).exists():
        return CellState("started")
    if problem := damage(folder):
        return CellState("damaged", f"{folder}: {problem}")
    try:
        stored = read_record(folder)
        return CellState(stored.record.status, stored=stored)
    except NewerRecordError as error:
        return CellState("newer", str(error))
    except BenchError as error:
        return CellState("damaged", str(error).removesuffix("; run the cell again"))


@dataclass(frozen=True)
class StoredRecord:
    """A record together with the folder that holds it.

    `unknown` names its fields that this version does not know; they were left out.
    """

    record: Record
    folder: Path
    unknown: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Tell whether the cell has a file of that name that is not damaged."""
        return (self.folder / name).exists() and name not in self.unreadable

    def accuracies(self) -> np.ndarray:
        """Return the accuracy of every test task, (n,) fractions, in task order; see `tasks`."""
        return self.tasks()[0]

    def tasks(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return accuracies (n,) and classes (n, n_way) in task order, None where not stored.

        Raises:
            BenchError: the table is missing or damaged, or its mean is not the record's.
        """
        return self._tasks

    @functools.cached_property
    def _tasks(self) -> tuple[np.ndarray, np.ndarray | None]:
        ways = [f"class_{way}" for way in range(self.record.n_way)]
        columns = read_parquet(self.folder / TASKS, ("task", "accuracy"))
        order = np.argsort(columns["task"])
        values, accuracy = columns["accuracy"][order], self.record.accuracy
        if accuracy is None or len(values) != accuracy.n or not _near(values, accuracy.mean):
            raise BenchError(f"{TASKS} and the record disagree")
        if ways[0] not in columns:
            return values, None
        if lost := set(ways) - columns.keys():
            raise BenchError(f"{TASKS} has no column {', '.join(sorted(lost))}")
        return values, np.stack([columns[way] for way in ways], axis=1)[order]

    def similarity(self) -> np.ndarray | None:
        """Return the similarity of the pool's teachers, (N, N), 1 on the diagonal, or None."""
        return self._similarity if self.has(SIMILARITY) else None

    @functools.cached_property
    def _similarity(self) -> np.ndarray | None:
        if self.record.pool is None:
            return None
        n = self.record.pool.n
        columns = read_parquet(self.folder / SIMILARITY, ("a", "b", "cka"))
        a, b = columns["a"], columns["b"]
        if sorted(zip(a, b, strict=True)) != [*itertools.combinations(range(n), 2)]:
            raise BenchError(f"{SIMILARITY} does not hold the pairs of {n} teachers")
        matrix = np.eye(n)
        matrix[a, b] = matrix[b, a] = columns["cka"]
        return matrix

    @functools.cached_property
    def unreadable(self) -> dict[str, str]:
        """The tables beside that of the tasks that are damaged, and what is wrong with each."""
        checks: dict[str, Callable[[], object]] = {
            SIMILARITY: lambda: self._similarity,
            CURVE: lambda: check_parquet(self.folder / CURVE, CURVE_COLUMNS),
            PREDICTIONS: lambda: check_parquet(self.folder / PREDICTIONS, PREDICTION_COLUMNS),
        }
        found = {}
        for name, check in checks.items():
            if (self.folder / name).exists():
                try:
                    check()
                except BenchError as error:
                    found[name] = str(error)
        return found


def _near(values: np.ndarray, mean: float) -> bool:
    """Tell whether values have a mean, up to the rounding of sums; NaN has none."""
    return bool(abs(values.mean() - mean) <= 1e-9)


def read_record(folder: Path) -> StoredRecord:
    """Read the record of one cell's folder, and nothing else.

    Raises:
        NewerRecordError: it is of a newer schema.
        BenchError: the file is missing, not JSON, or not a record.
    """
    path = folder / RECORD
    try:
        record, unknown = parse_record(json.loads(path.read_text(encoding="utf-8")))
    except NewerRecordError as error:
        raise NewerRecordError(f"{path} cannot be read: {error}") from None
    except (OSError, ValueError, BenchError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise BenchError(
            f"{path} is not a readable record ({reason}); run the cell again"
        ) from None
    return StoredRecord(record, folder, unknown)


def open_record(folder: Path) -> StoredRecord:
    """Read the record of one cell's folder with what a report takes from its files, all checked.

    A cell without `DONE` is taken only where it has no `config.json` either, which tells results
    that are stored for reading (`results/<suite>/<cell hash>/`) from a cell that is not finished.

    Raises:
        NewerRecordError: the record is of a newer schema.
        BenchError: the record or its table of tasks cannot be used, and why.
    """
    sealed = (folder / DONE).exists() or (folder / CONFIG).exists()
    if sealed and (problem := damage(folder)):
        raise BenchError(f"{folder}: {problem}; run the cell again")
    stored = read_record(folder)
    try:
        if stored.record.status == "done":
            stored.tasks()
    except BenchError as error:
        raise BenchError(f"{folder}: {error}; run the cell again") from None
    return stored


def place_of(folder: Path) -> tuple[str, str]:
    """Return the suite and the hash of the cell whose folder, or its successor's, this is."""
    return folder.parent.name, folder.name.removeprefix(".").removesuffix(".new")


def beside(folder: Path) -> Path:
    """Return a new empty folder where the successor of a cell's folder is made."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def replace(folder: Path, new: Path) -> None:
    """Put a complete folder in the place of another; an interruption leaves one for `recover`."""
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put the older folder back where a replacement was interrupted half-way, else remove it."""
    if not folder.exists() and _old(folder).is_dir():
        _old(folder).rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)


def add_warning(folder: Path, text: str) -> None:
    """Add a line to the warnings of a finished cell's record, once."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if text in record["warnings"]:
        return
    new = beside(folder)
    shutil.copytree(folder, new, dirs_exist_ok=True)
    write_json(new / RECORD, record | {"warnings": [*record["warnings"], text]})
    mark_done(new)
    replace(folder, new)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
