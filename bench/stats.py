"""Intervals and tests over per-task accuracies: which question each answers is in its docstring.

All take one value per task, (n,); scipy is imported where it is used. Sums over resamples go
through einsum: small products on many threads would only get in the way of other work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError

Values = Sequence[float] | np.ndarray

FLIPS_PER_CHUNK = 1000
"""Sign flips that are drawn at once; bounds memory, changes no result."""


class Interval(NamedTuple):
    """A mean and its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over n tasks, its interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p_value: float
    n: int


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    """Return the t interval of a mean: where the mean over all such tasks lies.

    Args:
        values: (n,), n at least 2.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: fewer than 2 values, one that is not finite, or a level outside (0, 1).

    Source: Student (1908): mean ± t_{n-1, (1 + level)/2} · s/√n, s with n - 1 in the denominator.
    """
    from scipy.special import stdtrit

    array = _checked(values, "values")
    _check_level(level)
    n = len(array)
    mean = float(array.mean())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    a: Values,
    b: Values,
    n_permutations: int,
    generator: np.random.Generator,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two learners on the same tasks: the interval of a - b, and a permutation p-value.

    Under "no difference" each task's difference is as likely to have the other sign. The order
    of the tasks does not matter, and swapping a and b only turns the sign, both exactly.

    Args:
        a, b: (n,), values of the same tasks in the same order.
        n_permutations: random sign flips of all differences.
        generator: draws the signs.
        level: coverage of the t interval.

    Raises:
        BenchError: lengths differ, fewer than 2 tasks, or no permutation asked for.

    Source: Fisher's sign-flip test; p = (1 + hits)/(1 + flips), Phipson and Smyth (2010).
    """
    first, second = _checked(a, "first values"), _checked(b, "second values")
    if len(first) != len(second):
        raise BenchError(
            f"{len(first)} and {len(second)} values cannot be paired; give both for the same tasks"
        )
    if n_permutations < 1:
        raise BenchError(f"n_permutations = {n_permutations}; it must be at least 1")
    differences = first - second
    interval = mean_interval(differences, level)
    p_value = _sign_flip_p(differences, n_permutations, generator)
    return PairedDifference(*interval, p_value, len(differences))


def _sign_flip_p(
    differences: np.ndarray, n_permutations: int, generator: np.random.Generator
) -> float:
    sizes = np.sort(np.abs(differences))
    sizes = sizes[sizes > 0]  # a task without difference stays one
    total = sizes.sum()
    observed = abs(math.fsum(differences))
    hits = 0
    for start in range(0, n_permutations, FLIPS_PER_CHUNK):
        n = min(FLIPS_PER_CHUNK, n_permutations - start)
        bits = np.frombuffer(generator.bytes(n * -(-len(sizes) // 8)), dtype=np.uint8)
        positive = np.unpackbits(bits.reshape(n, -1), axis=1, count=len(sizes))
        sums = 2 * np.einsum("ij,j->i", positive, sizes) - total
        hits += int((np.abs(sums) >= observed - 1e-9 * total).sum())
    return (1 + hits) / (1 + n_permutations)


def holm(p_values: Values) -> np.ndarray:
    """Return Holm's adjusted p-values, in the order given: (m,).

    Comparing each with α keeps the chance of any false finding among the m at most α.

    Raises:
        BenchError: a value outside [0, 1].

    Source: Holm (1979), step-down: the k-th smallest times m - k + 1, made monotone, at most 1.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if not np.all((array >= 0) & (array <= 1)):
        raise BenchError(f"p-values {array.tolist()} must lie within [0, 1]; correct them")
    order = np.argsort(array, kind="stable")
    factors = np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(array[order] * factors), 1.0)
    return adjusted


def bca_interval(
    values: Values,
    generator: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Return the BCa bootstrap interval of a mean: as the t interval, without its symmetry.

    Resamples are drawn as counts of the distinct values, which is the same distribution.

    Args:
        values: (n,), n at least 2.
        generator: draws the resamples.
        level: the coverage, within (0, 1).
        n_resamples: bootstrap samples.

    Raises:
        BenchError: as `mean_interval`.

    Source: Efron (1987), bias-corrected and accelerated; the jackknife's acceleration of a mean
    is Σd³ / (6 (Σd²)^{3/2}) with d the deviations from the mean.
    """
    from scipy.special import ndtr, ndtri

    array = _checked(values, "values")
    _check_level(level)
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean)
    distinct, counts = np.unique(array, return_counts=True)
    n = len(array)
    drawn = generator.multinomial(n, counts / n, size=n_resamples)
    means = np.einsum("ij,j->i", drawn, distinct) / n
    share = ((means < mean - 1e-12).mean() + (means <= mean + 1e-12).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / n_resamples, 1 - 0.5 / n_resamples))
    deviations = array - mean
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shifted = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return Interval(mean, float(low), float(high))


def _checked(values: Values, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise BenchError(
            f"{name} of shape {array.shape}; an interval needs at least 2 finite values, one a task"
        )
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise BenchError(f"level = {level}; it must lie within (0, 1), as 0.95")
