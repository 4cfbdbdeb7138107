"""Curves of a bounded number of points, chosen alike while a fit runs and when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

MOST_POINTS = 1000
"""Points of a curve that MLflow gets; its page draws fewer."""
_Row = TypeVar("_Row", bound="tuple[int, str, object]")


class Thinning:
    """Lets pass the first point of each curve in each thousandth of the steps.

    Args:
        total: number of steps; up to a thousand, every point passes.
    """

    def __init__(self, total: int) -> None:
        self._stride = max(1, -(-total // MOST_POINTS))
        self._last: dict[str, int] = {}

    def __call__(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        """Yield the rows (step, name, value) that pass, given in the order of their steps."""
        for row in rows:
            step, name, _ = row
            part = step // self._stride
            if part > self._last.get(name, -1):
                self._last[name] = part
                yield row
