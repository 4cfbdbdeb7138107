"""Paired comparison of two learners on the same test tasks: interval and permutation test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.stats.intervals import mean_interval
from bench.stats.values import Interval, Values, checked

FLIPS_PER_CHUNK = 1000
"""Sign flips that are drawn at once; bounds memory, changes no result."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over n tasks, its interval, and the two-sided p-value of no difference."""

    mean: float
    low: float
    high: float
    p_value: float
    n: int


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
        a: (n,), values of the first learner, one per task.
        b: (n,), values of the second learner on the same tasks in the same order.
        n_permutations: random sign flips of all differences.
        generator: draws the signs.
        level: coverage of the t interval.

    Raises:
        BenchError: lengths differ, fewer than 2 tasks, or no permutation asked for.

    Source: Fisher's sign-flip test; p = (1 + hits)/(1 + flips), Phipson and Smyth (2010).
    """
    return paired_differences([(a, b)], n_permutations, generator, level)[0]


def paired_differences(
    pairs: Sequence[tuple[Values, Values]],
    n_permutations: int,
    generator: np.random.Generator,
    level: float = 0.95,
) -> list[PairedDifference]:
    """Compare several pairs of learners as `paired_difference` does, under the same sign flips.

    The p-value of a pair does not depend on the pairs beside it. Drawing and unfolding the signs is
    what a test takes its time for; only the Monte-Carlo errors of several pairs go together.

    Args:
        pairs: (a, b) each, all of the same number of tasks.
        n_permutations: random sign flips of all differences.
        generator: draws the signs.
        level: coverage of the t interval.

    Raises:
        BenchError: as `paired_difference`, or pairs of different numbers of tasks.
    """
    arrays = [differences(a, b) for a, b in pairs]
    if n_permutations < 1:
        raise BenchError(f"n_permutations = {n_permutations}; it must be at least 1")
    counts = sorted({len(array) for array in arrays})
    if len(counts) > 1:
        raise BenchError(f"pairs of {counts} tasks; compare those of one number at a time")
    intervals = [mean_interval(array, level) for array in arrays]
    if not arrays:
        return []
    p_values = _sign_flip_p(np.array(arrays), n_permutations, generator)
    return [
        PairedDifference(*interval, float(p), len(array))
        for interval, p, array in zip(intervals, p_values, arrays, strict=True)
    ]


def _sign_flip_p(
    arrays: np.ndarray, n_permutations: int, generator: np.random.Generator
) -> np.ndarray:
    """Return the p-values (m,) of differences (m, n); sorted sizes make their order immaterial."""
    sizes = np.sort(np.abs(arrays), axis=1).T
    totals = sizes.sum(axis=0)
    observed = np.abs([math.fsum(array) for array in arrays])
    hits = np.zeros(len(arrays), dtype=np.int64)
    for start in range(0, n_permutations, FLIPS_PER_CHUNK):
        n = min(FLIPS_PER_CHUNK, n_permutations - start)
        bits = np.frombuffer(generator.bytes(n * -(-len(sizes) // 8)), dtype=np.uint8)
        positive = np.unpackbits(bits.reshape(n, -1), axis=1, count=len(sizes))
        sums = 2 * (positive.astype(np.float64) @ sizes) - totals
        hits += (np.abs(sums) >= observed - 1e-9 * totals).sum(axis=0)
    return (1 + hits) / (1 + n_permutations)


def improvement(a: Values, b: Values, level: float = 0.95) -> Interval:
    """Return the share of tasks on which a is better than b, ties as half, with its t interval.

    0.5 says that neither is ahead; the size of the differences plays no part.

    Args:
        a: (n,), values of the first learner, one per task.
        b: (n,), values of the second learner on the same tasks in the same order.
        level: coverage of the interval, which is cut at 0 and 1.

    Raises:
        BenchError: as `paired_difference`.

    Source: the probability of improvement of Agarwal et al. (NeurIPS 2021), taken over paired
    tasks instead of over all pairs of runs.
    """
    signs = np.sign(differences(a, b))
    found = mean_interval((1 + signs) / 2, level)
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high))


def minimal_detectable_difference(
    a: Values, b: Values, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the true difference that a t test over these tasks would detect with the given power.

    A smaller difference may be real and still stay undecided. In the unit of the values.

    Args:
        a: (n,), values of the first learner, one per task.
        b: (n,), values of the second learner on the same tasks in the same order.
        alpha: two-sided error rate of the t test.
        power: the share of repetitions that would find it, within (0, 1).

    Raises:
        BenchError: as `paired_difference`, or a rate outside (0, 1).

    Source: (t_{n-1, 1-α/2} + t_{n-1, power}) · s/√n, s of the differences; Cohen (1988).
    """
    from scipy.special import stdtrit

    array = differences(a, b)
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise BenchError(f"{name} = {value}; it must lie within (0, 1)")
    n = len(array)
    quantiles = float(stdtrit(n - 1, 1 - alpha / 2) + stdtrit(n - 1, power))
    return quantiles * float(array.std(ddof=1)) / math.sqrt(n)


def differences(a: Values, b: Values) -> np.ndarray:
    """Return a - b, (n,), after checking that both have the same number of tasks."""
    first, second = checked(a, "first values"), checked(b, "second values")
    if len(first) != len(second):
        raise BenchError(
            f"{len(first)} and {len(second)} values cannot be paired; give both for the same tasks"
        )
    return first - second
