"""Shared parts of the statistics: checked input, and a mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError

Values = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """A mean and its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def checked(values: Values, name: str) -> np.ndarray:
    """Return the values as a float64 array of one dimension, at least two, all finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise BenchError(
            f"{name} of shape {array.shape}; an interval needs at least 2 finite values, one per "
            "task"
        )
    return array


def check_level(level: float) -> None:
    """Raise unless a coverage lies within (0, 1)."""
    if not 0 < level < 1:
        raise BenchError(f"level = {level}; it must lie within (0, 1), as 0.95")
