"""Several seeds on the same tasks: their spread, and an interval over seeds and tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.stats.values import Interval, Values, check_level, checked


@dataclass(frozen=True)
class Spread:
    """The mean and the standard deviation (n - 1) of n repetitions, in the unit of the values."""

    mean: float
    std: float
    n: int


def seed_spread(means: Values) -> Spread:
    """Return mean and standard deviation of the seeds' means; never pooled with the tasks.

    Args:
        means: (n,), one mean a repetition, n at least 2.

    Raises:
        BenchError: fewer than 2 values, or one that is not finite.
    """
    array = checked(means, "means of repetitions")
    return Spread(float(array.mean()), float(array.std(ddof=1)), len(array))


def hierarchical_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the interval of the mean over other seeds and other tasks together.

    All repetitions meet the same tasks, so that both factors are crossed: with mean squares MS of
    repetitions, tasks and rest, the mean of S·T values has variance (MS_S + MS_T - MS_E)/(S·T),
    which is kept at or above either factor's own share, and Satterthwaite's degrees of freedom.
    A formula and no bootstrap: three repetitions have ten different resamples.

    Args:
        values: (S, T), a row a repetition, in the same order of tasks; S and T at least 2.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: another shape, a value that is not finite, or a level outside (0, 1).

    Source: crossed random effects, Clark (1973), the quasi-F of language studies; Satterthwaite
    (1946).
    """
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or min(array.shape) < 2 or not np.isfinite(array).all():
        raise BenchError(
            f"values of shape {array.shape}; an interval over repetitions and tasks needs finite "
            "values of at least 2 of each, one row per repetition"
        )
    check_level(level)
    n_seeds, n_tasks = array.shape
    mean = float(array.mean())
    of_seeds, of_tasks = array.mean(axis=1) - mean, array.mean(axis=0) - mean
    rest = array - mean - of_seeds[:, None] - of_tasks
    degrees = np.array([n_seeds - 1, n_tasks - 1, (n_seeds - 1) * (n_tasks - 1)])
    squares = np.array(
        [n_tasks * (of_seeds**2).sum(), n_seeds * (of_tasks**2).sum(), (rest**2).sum()]
    )
    of_seeds_ms, of_tasks_ms, rest_ms = squares / degrees
    total = max(of_seeds_ms + of_tasks_ms - rest_ms, of_seeds_ms, of_tasks_ms)
    if total <= 0:
        return Interval(mean, mean, mean)
    freedom = total**2 / ((squares / degrees) ** 2 / degrees).sum()
    half = float(stdtrit(max(freedom, 1.0), (1 + level) / 2)) * math.sqrt(total / array.size)
    return Interval(mean, mean - half, mean + half)
