"""The difference of two results on different tasks (Welch)."""

from __future__ import annotations

import math

from bench.stats.values import Interval, Values, check_level, checked


def unpaired_difference(a: Values, b: Values, level: float = 0.95) -> Interval:
    """Return the interval of mean(a) - mean(b) over tasks drawn independently of one another.

    It is wider than the paired one by what the difficulty of the tasks adds to both means.

    Args:
        a: (n,), at least 2 values.
        b: (m,), at least 2 values.
        level: the coverage, within (0, 1).

    Raises:
        BenchError: fewer than 2 values, one that is not finite, or a level outside (0, 1).

    Source: Welch (1947), t with the Welch-Satterthwaite degrees of freedom.
    """
    from scipy.special import stdtrit

    first, second = checked(a, "first values"), checked(b, "second values")
    check_level(level)
    mean = float(first.mean() - second.mean())
    parts = [float(x.var(ddof=1)) / len(x) for x in (first, second)]
    if sum(parts) == 0:
        return Interval(mean, mean, mean)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(x) - 1) for part, x in zip(parts, (first, second), strict=True)
    )
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(sum(parts))
    return Interval(mean, mean - half, mean + half)
