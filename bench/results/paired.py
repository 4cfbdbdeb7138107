"""Paired comparison of several pairs of results: one family of tests, adjusted by Holm."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from bench.results.memo import Memo
from bench.seeds import numpy_generator
from bench.stats import PairedDifference, holm, paired_differences

FLIPS = 100_000
"""Sign flips of a test: the least p, adjusted by Holm, is below 0.05 for 5,000 comparisons."""
ALPHA = 0.05
Tasks = tuple[np.ndarray, np.ndarray]
"""The accuracies (n,) and (n,) of two results on the same tasks."""


def compare_all(
    tasks: Sequence[Tasks | None], memo: Memo
) -> list[tuple[PairedDifference, float] | None]:
    """Return each pair's difference with its p-value adjusted by Holm over all pairs.

    All pairs of n tasks meet the same sign flips, so a pair has the same p-value in every table.

    Args:
        tasks: (n,) and (n,) accuracies on the same tasks; None is passed over, and stays None.
        memo: where differences are kept.
    """
    found: dict[int, PairedDifference] = {}
    for n in sorted({len(pair[0]) for pair in tasks if pair}):
        pairs = {i: pair for i, pair in enumerate(tasks) if pair and len(pair[0]) == n}
        some = list(pairs.values())
        numbers = memo.many("paired", some, functools.partial(_differences, some, n), FLIPS)
        for place, (mean, low, high, p) in zip(pairs, numbers, strict=True):
            found[place] = PairedDifference(mean, low, high, p, n)
    adjusted = holm([found[place].p_value for place in sorted(found)])
    p_values = dict(zip(sorted(found), map(float, adjusted), strict=True))
    return [
        (found[place], p_values[place]) if place in found else None for place in range(len(tasks))
    ]


def _differences(pairs: Sequence[Tasks], n: int, places: Sequence[int]) -> list[tuple[float, ...]]:
    some = [pairs[place] for place in places]
    made = paired_differences(some, FLIPS, numpy_generator("sign flips", n))
    return [(one.mean, one.low, one.high, one.p_value) for one in made]
