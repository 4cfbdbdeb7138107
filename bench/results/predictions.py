"""What a learner answered on each query of its test tasks: `predictions.parquet`. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results.files import read_parquet, write_parquet
from bench.results.store import PREDICTION_COLUMNS, PREDICTIONS, StoredRecord

LARGEST = float(np.finfo(np.float16).max)
"""A margin above this is stored as this."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers to the queries of n tasks with q queries each, in the order of the task list.

    `predicted` and `true` (n, q) are classes of the task, from 0; int8 up to 128 ways, else int16.
    `margin` (n, q) float16 is the largest logit minus the second largest, which is the logarithm
    of the ratio of the two classes' probabilities.
    """

    predicted: np.ndarray
    true: np.ndarray
    margin: np.ndarray

    @staticmethod
    def empty(n_tasks: int, n_queries: int, n_way: int) -> Predictions:
        """Return room for answers, to be filled in."""
        kind = np.int8 if n_way <= 128 else np.int16
        shape = (n_tasks, n_queries)
        return Predictions(np.zeros(shape, kind), np.zeros(shape, kind), np.zeros(shape, "f2"))

    def __len__(self) -> int:
        return len(self.predicted)

    def __getitem__(self, tasks: slice) -> Predictions:
        return Predictions(self.predicted[tasks], self.true[tasks], self.margin[tasks])

    def put(self, first: int, some: Predictions) -> None:
        """Fill in the answers of some tasks, from task `first` on."""
        tasks = slice(first, first + len(some))
        self.predicted[tasks] = some.predicted
        self.true[tasks] = some.true
        self.margin[tasks] = some.margin

    @property
    def hits(self) -> np.ndarray:
        """Which queries were answered right, (n, q) bool."""
        return self.predicted == self.true

    @property
    def accuracies(self) -> np.ndarray:
        """The accuracy of each task, (n,) float64 fractions."""
        return self.hits.mean(axis=1, dtype=np.float64)


def together(parts: list[Predictions]) -> Predictions:
    """Return the answers to several lists of tasks as those to one."""
    return Predictions(
        np.concatenate([one.predicted for one in parts]),
        np.concatenate([one.true for one in parts]),
        np.concatenate([one.margin for one in parts]),
    )


def write_predictions(path: Path, found: Predictions) -> None:
    """Write the columns `predicted`, `true`, `margin`: a row per query, task after task."""
    values = (found.predicted, found.true, found.margin)
    columns = zip(PREDICTION_COLUMNS, values, strict=True)
    write_parquet(path, {name: column.ravel() for name, column in columns})


def read_predictions(path: Path, n_tasks: int) -> Predictions:
    """Read the answers to a number of tasks.

    Raises:
        BenchError: the file is missing or damaged, or does not hold that many tasks.
    """
    columns = read_parquet(path, PREDICTION_COLUMNS)
    n = len(columns["predicted"])
    if n_tasks < 1 or n == 0 or n % n_tasks:
        raise BenchError(f"{path.name} holds {n} queries, not as many for each of {n_tasks} tasks")
    shape = (n_tasks, n // n_tasks)
    return Predictions(*(columns[name].reshape(shape) for name in PREDICTION_COLUMNS))


def stored_predictions(stored: StoredRecord) -> Predictions | None:
    """Return the answers of a finished cell, None where it keeps none or they are damaged."""
    if stored.record.accuracy is None or not stored.has(PREDICTIONS):
        return None
    return read_predictions(stored.folder / PREDICTIONS, stored.record.scored.n)
