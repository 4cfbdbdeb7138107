"""Equivalence and non-inferiority of two learners on the same test tasks, within δ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.errors import BenchError
from bench.stats.paired import differences
from bench.stats.values import Values

Verdict = Literal["better", "equivalent", "no worse", "worse", "undecided"]


@dataclass(frozen=True)
class Equivalence:
    """The mean of a - b against a margin; p-values are one-sided.

    `p_no_worse` speaks against "a is worse than b by δ or more", `p_no_better` against "better by
    δ or more"; both small: equivalent within δ.
    """

    mean: float
    margin: float
    p_no_worse: float
    p_no_better: float
    p_better: float
    n: int

    @property
    def p_value(self) -> float:
        """The p-value of equivalence: the larger of the two one-sided ones."""
        return max(self.p_no_worse, self.p_no_better)

    def verdict(self, alpha: float = 0.05) -> Verdict:
        """Return the strongest statement that holds at error rate α per side."""
        if self.p_value < alpha:
            return "equivalent"
        if self.p_better < alpha / 2:
            return "better"
        if self.p_no_worse < alpha:
            return "no worse"
        return "worse" if 1 - self.p_better < alpha / 2 else "undecided"


def equivalence(a: Values, b: Values, margin: float) -> Equivalence:
    """Test whether a is no worse than b by `margin`, and whether both are equivalent within it.

    Args:
        a: (n,), values of the first learner, one per task.
        b: (n,), values of the second learner on the same tasks in the same order.
        margin: δ > 0, in the unit of the values: the largest difference that does not matter.

    Raises:
        BenchError: lengths differ, fewer than 2 tasks, or a margin that is not positive.

    Source: two one-sided t tests (TOST), Schuirmann (1987).
    """
    array = differences(a, b)
    if not (margin > 0 and math.isfinite(margin)):
        raise BenchError(f"margin = {margin}; it must be positive, as 0.01 for one point")
    n = len(array)
    mean = float(array.mean())
    error = float(array.std(ddof=1)) / math.sqrt(n)
    return Equivalence(
        mean=mean,
        margin=margin,
        p_no_worse=_upper_tail(mean + margin, error, n),
        p_no_better=_upper_tail(margin - mean, error, n),
        p_better=_upper_tail(mean, error, n),
        n=n,
    )


def _upper_tail(distance: float, error: float, n: int) -> float:
    """Return the p-value of a mean that lies `distance` above its bound."""
    from scipy.special import stdtr

    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(n - 1, -distance / error))
