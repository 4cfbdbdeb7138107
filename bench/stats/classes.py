"""The "open" interval, which includes the choice of test classes and of their images."""

from __future__ import annotations

import math

import numpy as np

from bench.errors import BenchError
from bench.stats.resamples import resample_counts, resampled_means
from bench.stats.values import Interval, Values, check_level, checked

MIN_TASKS_PER_CLASS = 2
"""Fewer tasks than this many times the classes do not tell class effects from noise."""


def open_interval(
    values: Values,
    classes: np.ndarray,
    counts: np.ndarray,
    generator: np.random.Generator,
    level: float = 0.95,
) -> Interval:
    """Return the cluster bootstrap interval of a mean over other test classes and images.

    A t interval over tasks speaks of more tasks of the same classes and images. Here the value
    of a task is μ + Σ_c β_c + ε over its classes; classes are drawn anew with all their tasks'
    effects β, whose least-squares estimates are shrunk by their own noise, and ε anew with the
    tasks. Images are units within classes: their choice varies β and is covered with it.
    The quantiles are widened for the few classes, as Hesterberg does, to what Student's t would
    have with C - 1 degrees of freedom.

    Args:
        values: (n,), one a task; accuracies, or differences of two learners.
        classes: (n, n_way) integers, the distinct classes of each task.
        counts: (n_resamples, n), the bootstrap samples of the tasks, of `resample_counts`.
        generator: draws as many of the classes.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: shapes that do not go together, or fewer than 2 tasks a class.

    Source: Hoeffding's projection of a U-statistic (1948) for the additive effects; Owen (2007)
    on resampling crossed units; Hesterberg (2015), section 4.3, for the widened quantiles.
    """
    from scipy.special import ndtr, stdtrit

    array = checked(values, "values")
    check_level(level)
    effects, rest, n_way = class_effects(array, classes)
    n_classes = len(effects)
    mean = float(array.mean())
    drawn = resample_counts(n_classes, generator, len(counts))
    of_classes = resampled_means(effects, drawn) * math.sqrt(n_classes / (n_classes - 1))
    means = mean + n_way * of_classes + resampled_means(rest, counts)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    widened = ndtr(stdtrit(n_classes - 1, tails))
    low, high = np.quantile(means, widened)
    return Interval(mean, float(low), float(high))


def class_effects(values: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return class effects (C,), centred and shrunk, residuals (n,), and n_way.

    Raises:
        BenchError: as `open_interval`.
    """
    members = np.asarray(classes)
    if members.ndim != 2 or len(members) != len(values):
        raise BenchError(
            f"classes of shape {members.shape} for {len(values)} values; give the classes of each"
        )
    names, columns = np.unique(members, return_inverse=True)
    n_tasks, n_way = members.shape
    if len(names) < 3 or n_tasks < MIN_TASKS_PER_CLASS * len(names):
        raise BenchError(
            f"{n_tasks} tasks of {len(names)} classes; an open interval needs at least 3 classes "
            f"and {MIN_TASKS_PER_CLASS} tasks per class"
        )
    design = np.zeros((n_tasks, len(names)))
    design[np.arange(n_tasks)[:, None], columns.reshape(members.shape)] = 1
    inverse = np.linalg.pinv(design.T @ design)
    raw = inverse @ (design.T @ values)
    rest = values - design @ raw
    centring = np.eye(len(names)) - 1 / len(names)
    noise = (rest**2).sum() / (n_tasks - len(names))
    noise *= np.trace(centring @ inverse @ centring) / (len(names) - 1)
    effects = raw - raw.mean()
    observed = (effects**2).sum() / (len(names) - 1)
    shrink = math.sqrt(max(0.0, 1 - noise / observed)) if observed > 0 else 0.0
    return shrink * effects, rest * math.sqrt(n_tasks / (n_tasks - len(names))), n_way
