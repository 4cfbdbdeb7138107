"""The accuracy table that fills while a run goes on: a row per method, a column per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from bench.suites.cell import Cell

PENDING = "·"
MOST_COLUMNS = 4
"""Columns that are shown: the first."""


class FillingTable:
    """What the cells of a run gave so far.

    Args:
        cells: of the run, in the order of its plan.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._places = {cell.label: _place(cell) for cell in cells}
        places = self._places.values()
        self.rows = list(dict.fromkeys(row for row, _ in places))
        self.columns = list(dict.fromkeys(column for _, column in places))[:MOST_COLUMNS]
        self._values: dict[tuple[str, str], list[str]] = {}
        self._latest: list[str] = []

    def fill(self, label: str, outcome: str) -> None:
        """Take note of how a cell ended: what stands before the first comma of its outcome."""
        if (place := self._places.get(label)) is None:
            return
        self._values.setdefault(place, []).append(outcome.split(",")[0].removesuffix(" %"))
        self._latest = [row for row in self._latest if row != place[0]] + [place[0]]

    def value(self, row: str, column: str) -> str:
        """Return the text of a field: the last seed's, with the number of seeds if several."""
        found = self._values.get((row, column), [])
        if not found:
            return PENDING
        text = found[-1] if len(found[-1]) <= 14 else found[-1].split(":")[0]
        return f"{text} ({len(found)})" if len(found) > 1 else text

    def shown_rows(self, room: int) -> list[str]:
        """Return as many rows as there is room for: all, or those that were filled last."""
        if len(self.rows) <= room:
            return self.rows
        latest = set(self._latest[max(0, len(self._latest) - room) :])
        waiting = [row for row in self.rows if row not in latest]
        kept = latest | set(waiting[: room - len(latest)])
        return [row for row in self.rows if row in kept]

    def rendered(self, room: int) -> Table:
        """Return the table with at most `room` rows below its header."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, title_justify="left")
        table.add_column("method · learner", no_wrap=True, overflow="ellipsis")
        for column in self.columns:
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.shown_rows(room):
            table.add_row(row, *(self.value(row, column) for column in self.columns))
        return table


def _place(cell: Cell) -> tuple[str, str]:
    """Return the row and the column of a cell; those of several seeds are the same."""
    method, learner, task, *rest = cell.label.split(" · ")
    variant = [part for part in rest if not part.startswith("seed ")]
    return " · ".join([method, learner, *variant]), task
