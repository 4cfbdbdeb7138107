"""Holm's step-down adjustment for several comparisons in one table."""

from __future__ import annotations

import numpy as np

from bench.errors import BenchError
from bench.stats.values import Values


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
