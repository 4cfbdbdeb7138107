"""Points of curves: a bounded number, chosen alike while a fit runs and when it has ended.

`<cell>/.curve.jsonl` holds a line `[step, name, value]` per point, at most a thousand points of
each curve. It grows every ten seconds while the cell is fitted, and is deleted when the cell is
finished.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from bench.results.store import CURVE_POINTS

Row = tuple[int, str, float]
"""Step, name and value of a point."""
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


class CurveReader:
    """Reads what was added to a cell's file of points since it was last read.

    Args:
        folder: of the cell.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CURVE_POINTS
        self._at = 0

    def rows(self) -> list[Row]:
        """Return the new points; all, where the file was begun anew."""
        try:
            with self._path.open("rb") as file:
                if self._at > self._path.stat().st_size:
                    self._at = 0
                file.seek(self._at)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                step, name, value = json.loads(line)
                found.append((int(step), str(name), float(value)))
        return found


class CurveWriter:
    """Writes the points of a cell under way; a full disk stops no work.

    Args:
        folder: of the cell.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CURVE_POINTS
        self._thinning: Thinning | None = None

    def add(self, rows: Iterable[Row], total: int) -> None:
        """Add points in the order of their steps.

        Args:
            rows: the points.
            total: the number of steps that the fit will have.
        """
        self._thinning = self._thinning or Thinning(total)
        lines = [f"{json.dumps(row)}\n" for row in self._thinning(rows)]
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
