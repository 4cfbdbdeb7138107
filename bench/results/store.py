"""Where records lie: the files of a cell, how a finished one is told, and how all are found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results.files import file_sha256, read_parquet, write_json, write_parquet
from bench.results.record import SCHEMA, Record

DONE = "DONE"
RECORD = "record.json"
ARTIFACTS = "mlartifacts"
"""The folder, below one of runs, where the MLflow store keeps copies of their files."""
TASKS = "tasks.parquet"
CURVE = "curve.parquet"
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


def is_finished(folder: Path) -> bool:
    """Tell whether a folder is complete: `DONE` is there and every file has its digest."""
    try:
        digests = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class StoredRecord:
    """A record together with the folder that holds it."""

    record: Record
    folder: Path

    def accuracies(self) -> np.ndarray:
        """Return the accuracy of every test task, (n,) fractions, in task order."""
        return self.tasks()[0]

    def tasks(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return accuracies (n,) and classes (n, n_way) in task order, None where not stored."""
        columns = read_parquet(self.folder / TASKS)
        order = np.argsort(columns["task"])
        ways = [columns[f"class_{way}"] for way in range(self.record.n_way) if "class_0" in columns]
        return columns["accuracy"][order], np.stack(ways, axis=1)[order] if ways else None

    def similarity(self) -> np.ndarray | None:
        """Return how alike the pool's teachers are, (N, N), 1 on the diagonal; None: not stored."""
        path = self.folder / SIMILARITY
        if self.record.pool is None or not path.exists():
            return None
        columns = read_parquet(path)
        matrix = np.eye(self.record.pool.n)
        matrix[columns["a"], columns["b"]] = matrix[columns["b"], columns["a"]] = columns["cka"]
        return matrix


def read_record(folder: Path) -> StoredRecord:
    """Read the record of one cell's folder.

    Raises:
        BenchError: the file is missing, not JSON, of another schema, or not a record.
    """
    path = folder / RECORD
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.get("schema_version") != SCHEMA:
            raise BenchError(
                f"{path} has schema {value.get('schema_version')}, this version reads {SCHEMA}; "
                "run the cell again or use the version that wrote it"
            )
        return StoredRecord(Record.model_validate(value), folder)
    except (OSError, ValueError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise BenchError(f"{path} is not a readable record ({first}); run the cell again") from None


def find_records(root: Path) -> list[StoredRecord]:
    """Read every record below a folder: finished cells of a runs folder, and stored results.

    A cell without a valid `DONE` counts only where the folder has no `config.json`, which marks
    it as stored for reading (`results/<suite>/<cell hash>/`) rather than left half-written. The
    copies in the MLflow store's folder of artifacts are passed over.
    """
    if not root.is_dir():
        raise BenchError(f"'{root}' is not a folder; name the folder of runs, as in --runs DIR")
    folders = sorted(path.parent for path in root.rglob(RECORD))
    return [
        read_record(folder)
        for folder in folders
        if ARTIFACTS not in folder.relative_to(root).parts
        and (not (folder / "config.json").exists() or is_finished(folder))
    ]
