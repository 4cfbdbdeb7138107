"""Intervals of a mean over test tasks: Student's t and the BCa bootstrap.

Sums over resamples go through einsum: small products on many threads would only get in the way
of other work.
"""

from __future__ import annotations

import math

import numpy as np

from bench.stats.resamples import resampled_means
from bench.stats.values import Interval, Values, check_level, checked


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    """Return the t interval of the mean over all tasks of the same classes.

    Args:
        values: (n,), n at least 2.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: fewer than 2 values, one that is not finite, or a level outside (0, 1).

    Source: Student (1908): mean ± t_{n-1, (1 + level)/2} · s/√n, s with n - 1 in the denominator.
    """
    from scipy.special import stdtrit

    array = checked(values, "values")
    check_level(level)
    n = len(array)
    mean = float(array.mean())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def bca_interval(values: Values, counts: np.ndarray, level: float = 0.95) -> Interval:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of a mean; asymmetric.

    Args:
        values: (n,), n at least 2; their order does not matter.
        counts: (n_resamples, n), the bootstrap samples of `resample_counts`.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: as `mean_interval`, or counts of another number of values.

    Source: Efron (1987), bias-corrected and accelerated; the jackknife's acceleration of a mean
    is Σd³ / (6 (Σd²)^{3/2}) with d the deviations from the mean.
    """
    from scipy.special import ndtr, ndtri

    array = checked(values, "values")
    check_level(level)
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean)
    means = resampled_means(np.sort(array), counts)
    n_resamples = len(means)
    share = ((means < mean - 1e-12).mean() + (means <= mean + 1e-12).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / n_resamples, 1 - 0.5 / n_resamples))
    deviations = array - mean
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shifted = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return Interval(mean, float(low), float(high))
