"""The record of a cell: its model, its files, and how a finished one is told from the rest.

Free of torch and MLflow: reports read records with this module alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from bench.contract import Budget, ProtocolConstants, with_added
from bench.errors import BenchError

SCHEMA = 1
DONE = "DONE"
RECORD = "record.json"
ARTIFACTS = "mlartifacts"
"""The folder, below one of runs, where the MLflow store keeps copies of their files."""
TASKS = "tasks.parquet"
CURVE = "curve.parquet"
SIMILARITY = "similarity.parquet"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accuracy(_Part):
    """Fractions in [0, 1] over n test tasks; std is the population's, ci95 = 1.96·std/√n."""

    mean: float
    ci95: float
    std: float
    n: int


class Timing(_Part):
    """Seconds and rates; None where a thing was not done. Validation and checkpoints are in
    neither; the rates of a fit are those of its loop from the end of its first step on
    (`bench.timing.Pace`). Peak memory: of the process, or of the GPU's allocator where one was
    used."""

    fit_s: float | None = None
    meta_iterations_per_s: float | None = None
    train_tasks_per_s: float | None = None
    pseudo_images_per_s: float | None = None
    test_s: float | None = None
    test_tasks_per_s: float | None = None
    embeddings_reused: bool = False
    peak_memory_bytes: int | None = None


class Cost(_Part):
    """What prediction and the fit cost; MACs are multiply-accumulates of one image or task."""

    params: int | None = None
    macs_per_query_image: int | None = None
    macs_adapt_per_task: int | None = None
    teacher_forward_images: int = 0
    queries: int = 0


class Device(_Part):
    """Where the cell ran."""

    type: str
    name: str
    threads: int


class Environment(_Part):
    """With what the cell ran; `git_commit` is None outside a checkout."""

    python: str
    platform: str
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None


class PoolSummary(_Part):
    """Which teachers a cell used; `name` is that of an imported pool."""

    name: str | None = None
    sha256: str
    n: int
    mean_accuracy: float
    architectures: dict[str, int]
    teachers: list[dict[str, Any]]


class FitSummary(_Part):
    """Which fit a cell used, whether an earlier cell had made it, and how it was computed.

    `strategies` names, for each part that can be computed in several equal ways, the one taken.
    """

    sha256: str
    reused: bool
    strategies: dict[str, str] = {}


class Record(_Part):
    """The result of one cell, complete enough to explain itself and to be run again."""

    schema_version: int = SCHEMA
    status: Literal["done", "failed", "skipped"]
    reason: str | None = None
    suite: str
    cell_hash: str
    scenario: str
    datasets: list[str]
    test_datasets: list[str] = []
    dataset_digests: dict[str, str]
    architectures: list[str]
    net: str
    method: str
    knowledge: str
    preset: str
    method_config: dict[str, Any]
    learner: str
    calibration: str
    calibration_config: dict[str, Any] = {}
    n_way: int
    k_shot: int
    n_query: int
    n_test_tasks: int
    task_list_sha256: str | None = None
    protocol: dict[str, Any]
    variant: str = ""
    budget: dict[str, Any]
    selection: str
    seed: int
    accuracy: Accuracy | None = None
    timing: Timing = Timing()
    cost: Cost = Cost()
    device: Device
    environment: Environment
    pool: PoolSummary | None = None
    fit: FitSummary | None = None
    command: str
    warnings: list[str] = []
    started: str
    ended: str

    @model_validator(mode="after")
    def _know_what_was_added(self) -> Record:
        """An older record says nothing of constants added since: they were what is default now."""
        self.protocol = with_added(ProtocolConstants, self.protocol)
        self.budget = with_added(Budget, self.budget)
        return self

    @property
    def tested(self) -> list[str]:
        """The data sets whose test tasks were scored; the pool's may be more."""
        return self.test_datasets or self.datasets

    @property
    def protocol_label(self) -> str:
        """The name under which numbers may share a table: the protocol, or the budget's own.

        A short budget is a protocol of its own name and never stands beside the paper's.
        """
        if self.budget["name"] == "paper":
            return self.protocol["name"]
        return f"{self.budget['name']} ({self.protocol['name']})"


def summarise(accuracies: Sequence[float] | np.ndarray) -> Accuracy:
    """Summarise one accuracy per task.

    Args:
        accuracies: (n,) fractions in [0, 1], one per test task.

    Raises:
        BenchError: none given, or one is not a fraction.

    Source: the field's convention, mean ± 1.96·population std/√n over tasks.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    if values.size == 0 or not np.all((values >= 0) & (values <= 1)):
        raise BenchError(f"{values.size} accuracies given; need at least one, all within [0, 1]")
    std = float(values.std())
    n = int(values.size)
    return Accuracy(mean=float(values.mean()), ci95=1.96 * std / math.sqrt(n), std=std, n=n)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_hash(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; on success fsync it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file that is either complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that is either complete or absent."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length as a parquet file that is either complete or absent."""
    import pyarrow
    import pyarrow.parquet

    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), temporary)


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a parquet file as arrays.

    By way of lists: pyarrow's own conversion imports pandas, a second on a slow machine.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        table = file.read()
    return {
        field.name: np.asarray(
            table[field.name].to_pylist(),
            dtype=object if str(field.type) == "string" else str(field.type),
        )
        for field in table.schema
    }


def write_tasks(path: Path, accuracies: np.ndarray, classes: np.ndarray | None = None) -> None:
    """Write the task table: `task` (int32), `accuracy` (float64), `class_0` … (int32).

    Args:
        path: the file.
        accuracies: (n,) fractions.
        classes: (n, n_way) which classes of the test split each task is made of; kept, so that
            an interval over classes needs neither the data nor the code that drew the tasks.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    columns = {"task": np.arange(len(values), dtype=np.int32), "accuracy": values}
    if classes is not None:
        members = np.asarray(classes, dtype=np.int32).T
        columns |= {f"class_{way}": column for way, column in enumerate(members)}
    write_parquet(path, columns)


def write_similarity(path: Path, matrix: np.ndarray) -> None:
    """Write how alike teachers are, (N, N) symmetric: `a` < `b` (int32), `cka` (float64)."""
    a, b = np.triu_indices(len(matrix), k=1)
    columns = {"a": a.astype(np.int32), "b": b.astype(np.int32), "cka": matrix[a, b]}
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
