"""Rows, columns and results of tables; a result holds the records of all seeds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.results.community import OURS
from bench.results.predictions import Predictions, stored_predictions
from bench.results.store import StoredRecord
from bench.stats import seed_spread

OTHER_TASKS = "not the same test tasks"


class Row(NamedTuple):
    """The identity of a row; `variant` names settings that distinguish otherwise equal rows.

    `origin` is whose result it is: `ours`, or of the community, `reproduced` or `submitted`.
    """

    knowledge: str
    inference: str
    method: str
    preset: str
    learner: str
    calibration: str
    variant: str
    origin: str = OURS

    @property
    def name(self) -> str:
        """The method as shown."""
        preset = "" if self.preset == "released" else f" ({self.preset})"
        return self.method + preset + (f" [{self.variant}]" if self.variant else "")

    @property
    def full_name(self) -> str:
        """The method as shown where no column says whose result it is."""
        return self.name + ("" if self.origin == OURS else f" ({self.origin})")

    @property
    def head(self) -> str:
        """The learner as shown, with its calibration."""
        return self.learner + ("" if self.calibration == "none" else f" + {self.calibration}")

    @property
    def ranked(self) -> bool:
        """Whether the method is data-free."""
        return self.knowledge != "real_data"


class Setting(NamedTuple):
    """The identity of a column; other image files make another column."""

    datasets: tuple[str, ...]
    n_way: int
    k_shot: int
    digests: tuple[str, ...]

    @property
    def data(self) -> str:
        """The data sets as shown: test tasks are of one, or of all of the scenario together."""
        return self.datasets[0] if len(self.datasets) == 1 else f"all {len(self.datasets)}"

    @property
    def shape(self) -> tuple[int, int]:
        """Ways and shots."""
        return self.n_way, self.k_shot


class Result:
    """The records of one row and setting: one for each seed."""

    def __init__(self, stored: Sequence[StoredRecord]) -> None:
        self._stored = stored
        ordered = sorted(stored, key=lambda one: one.record.seed)
        self.done = [one for one in ordered if one.record.status == "done"]
        self.missed = [one.record for one in ordered if one.record.status != "done"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The repetitions that have a result."""
        return tuple(one.record.seed for one in self.done)

    @property
    def n_tasks(self) -> int:
        """The number of test tasks of each seed."""
        return self.done[0].record.n_test_tasks

    @property
    def mean(self) -> float:
        """The mean of the seeds' mean accuracies, a fraction."""
        return float(np.mean([one.record.scored.mean for one in self.done]))

    @property
    def ci95(self) -> float:
        """The mean of the seeds' task intervals: tasks of several seeds are never pooled."""
        return float(np.mean([one.record.scored.ci95 for one in self.done]))

    @property
    def of_seeds(self) -> dict[int, float]:
        """The mean accuracy of each seed, a fraction."""
        return {one.record.seed: one.record.scored.mean for one in self.done}

    @property
    def spread(self) -> float | None:
        """The standard deviation (n - 1) of the seeds' means; None for one seed."""
        if len(self.done) < 2:
            return None
        return seed_spread([one.record.scored.mean for one in self.done]).std

    @property
    def task_list(self) -> str | None:
        """The digest of the tasks that all seeds met; None where they met different ones."""
        digests = {one.record.task_list_sha256 for one in self.done}
        return digests.pop() if len(digests) == 1 else None

    def on(self, seeds: Sequence[int]) -> Result:
        """Return the result of some of the seeds."""
        if self.seeds == tuple(seeds):
            return self
        return Result([one for one in self._stored if one.record.seed in seeds])

    @functools.cached_property
    def by_seed(self) -> np.ndarray:
        """The accuracy of each task for each seed, (seeds, n) fractions."""
        return np.stack([one.accuracies() for one in self.done])

    @functools.cached_property
    def tasks(self) -> np.ndarray:
        """The accuracy of each task averaged over the seeds, (n,) fractions."""
        return np.mean(self.by_seed, axis=0)

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The classes of each task, (n, n_way), where stored and the same for all seeds."""
        return self.done[0].tasks()[1] if self.task_list else None

    def predictions(self) -> list[Predictions] | None:
        """Return the stored answers of each seed; None where one keeps none that can be read."""
        found = []
        for one in self.done:
            try:
                answers = stored_predictions(one)
            except BenchError:
                return None
            if answers is None:
                return None
            found.append(answers)
        return found


class Pair(NamedTuple):
    """Two results on the seeds that both have; without tasks in common there is a reason."""

    a: Result
    b: Result
    reason: str | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that both have."""
        return self.a.seeds

    @property
    def has_two_pools(self) -> bool:
        """Whether both have teachers, of one seed not the same ones; not for a pair with a reason.

        Teachers that are trained alike differ where threads, processor or versions did.
        """
        both = zip(self.a.done, self.b.done, strict=True)
        pools = [(one.record.pool, other.record.pool) for one, other in both]
        return any(a.sha256 != b.sha256 for a, b in pools if a and b)


def paired(a: Result | None, b: Result | None) -> Pair:
    """Return two results on the seeds that both have, or why no task can be compared."""
    a, b = a or Result([]), b or Result([])
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if not a.done or not b.done:
        return Pair(a, b, "one of the two has no result")
    if not seeds:
        return Pair(a, b, "no seed in common")
    a, b = a.on(seeds), b.on(seeds)
    if a.task_list is None or a.task_list != b.task_list:
        return Pair(a, b, OTHER_TASKS)
    return Pair(a, b, "a single test task" if a.done[0].record.scored.n < 2 else None)


def best_first(results: Mapping[Row, Result]) -> list[Row]:
    """Return the rows of a column in their order, the best first.

    Two rows are compared on the seeds that both have, and by their own means without any: another
    seed is another pool. First is the row that is behind the fewest others, then the greater mean.
    With the same seeds everywhere that is the order of the means.

    Args:
        results: of each row, with at least one seed done.
    """
    rows = sorted(results, key=lambda row: -results[row].mean)
    if len({result.seeds for result in results.values()}) < 2:
        return rows
    of_seeds = [results[row].of_seeds for row in rows]
    seeds = sorted(set().union(*of_seeds))
    values = np.array([[one.get(seed, np.nan) for seed in seeds] for one in of_seeds])
    means = np.array([results[row].mean for row in rows])
    gaps = values[:, None] - values
    shared = np.isfinite(gaps).any(axis=2)
    behind = np.where(shared, np.nansum(gaps, axis=2), means[:, None] - means) < 0
    return [rows[i] for i in np.argsort(behind.sum(axis=1), kind="stable")]
