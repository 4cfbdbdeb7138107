"""Records as flat rows, one per cell, for `results.csv` and as a data frame."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.results.files import canonical_json
from bench.results.memo import Memo
from bench.results.record import Record
from bench.results.store import StoredRecord
from bench.seeds import numpy_generator
from bench.stats import Interval, bca_interval, mean_interval, open_interval, resample_counts

if TYPE_CHECKING:
    import numpy as np
    import pandas


_PLAIN = (
    "suite",
    "cell_hash",
    "status",
    "reason",
    "scenario",
    "net",
    "method",
    "preset",
    "knowledge",
    "inference",
    "learner",
    "calibration",
    "n_way",
    "k_shot",
    "n_query",
    "n_test_tasks",
    "task_list_sha256",
    "selection",
    "seed",
    "started",
    "ended",
)
_OF_TASKS = (
    *("cell_hash", "method", "preset", "learner", "calibration", "n_way", "k_shot", "seed"),
    "task_list_sha256",
)
"""What a row of `task_frame` says of its cell."""
_ACCURACY = ("accuracy_mean", "ci95", "std", "n")
_INTERVALS = ("t_low", "t_high", "bca_low", "bca_high", "open_low", "open_high")


def record_row(stored: StoredRecord, memo: Memo | None = None) -> dict[str, Any]:
    """Return the record as one flat row; accuracies are fractions, absent values are None."""
    record = stored.record
    row = {name: getattr(record, name) for name in _PLAIN}
    row |= {
        "protocol_label": record.protocol_label,
        "protocol": record.protocol["name"],
        "budget": record.budget["name"],
        "datasets": "+".join(record.tested),
        "architectures": "+".join(record.architectures),
        "method_config": canonical_json(record.method_config),
        "calibration_config": canonical_json(record.calibration_config),
        "protocol_constants": canonical_json(record.protocol),
        "budget_counts": canonical_json(record.budget),
    }
    row |= _accuracy_columns(stored, memo or Memo())
    row |= record.timing.model_dump() | record.cost.model_dump() | _surroundings(record)
    return row


def _accuracy_columns(stored: StoredRecord, memo: Memo) -> dict[str, float | None]:
    accuracy = stored.record.accuracy
    if accuracy is None:
        return dict.fromkeys(_ACCURACY + _INTERVALS)
    values = [accuracy.mean, accuracy.ci95, accuracy.std, accuracy.n]
    row: dict[str, float | None] = dict(zip(_ACCURACY, values, strict=True))
    row |= dict.fromkeys(_INTERVALS)
    if accuracy.n < 2:
        return row
    tasks, classes = stored.tasks()
    _, row["t_low"], row["t_high"] = mean_interval(tasks)
    row["bca_low"], row["bca_high"] = memo.numbers(
        "bca", [tasks], lambda: bca_interval(tasks, _counts(len(tasks)))[1:]
    )
    if classes is not None and (found := open_interval_of(tasks, classes, memo)):
        _, row["open_low"], row["open_high"] = found
    return row


@functools.lru_cache(maxsize=4)
def _counts(n: int) -> np.ndarray:
    """Return the bootstrap samples that all records of n tasks share."""
    return resample_counts(n, numpy_generator("resamples", n))


def open_interval_of(tasks: np.ndarray, classes: np.ndarray, memo: Memo) -> Interval | None:
    """Return the open interval of one value per task, or None for too few classes."""

    def compute() -> Interval | tuple[()]:
        try:
            return open_interval(tasks, classes, _counts(len(tasks)), numpy_generator("open"))
        except BenchError:
            return ()

    found = memo.numbers("open", [tasks, classes], compute)
    return Interval(*found) if found else None


def _surroundings(record: Record) -> dict[str, Any]:
    pool, fit, environment = record.pool, record.fit, record.environment
    return {
        "device_type": record.device.type,
        "device_name": record.device.name,
        "threads": record.device.threads,
        "pool_sha256": pool.sha256 if pool else None,
        "pool_n": pool.n if pool else None,
        "pool_mean_accuracy": pool.mean_accuracy if pool else None,
        "fit_sha256": fit.sha256 if fit else None,
        "fit_reused": fit.reused if fit else None,
        "git_commit": environment.git_commit,
        "git_dirty": environment.git_dirty,
    }


def record_frame(stored: Sequence[StoredRecord]) -> pandas.DataFrame:
    """Return a data frame with one row per record, columns as `record_row`."""
    import pandas

    return pandas.DataFrame([record_row(one) for one in stored])


def task_frame(stored: Sequence[StoredRecord]) -> pandas.DataFrame:
    """Return a data frame with one row per test task of each record that has a result."""
    import pandas

    parts = []
    for one in stored:
        if one.record.accuracy is None:
            continue
        values = one.accuracies()
        names = {name: getattr(one.record, name) for name in _OF_TASKS}
        of_task = {"task": range(len(values)), "accuracy": values}
        parts.append(
            pandas.DataFrame({**names, "datasets": "+".join(one.record.tested), **of_task})
        )
    columns = [*_OF_TASKS, "datasets", "task", "accuracy"]
    return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=columns)
