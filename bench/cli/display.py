"""Progress: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from bench.execute.progress import Standing

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines of one stage."""

BAR_WIDTH = 24
BESIDE_LABEL = BAR_WIDTH + 36
"""Columns of a bar, counts of five digits, two times, and the spaces between."""
LEAST_LABEL = 12


class PlainDisplay:
    """One line per finished cell, and every ten seconds a line about the current stage."""

    def __init__(self, n_cells: int, echo: Callable[[str], object]) -> None:
        self.n_cells = n_cells
        self.echo = echo
        self.n_done = 0
        self._label = ""
        self._last = time.monotonic()

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def start_cell(self, label: str) -> None:
        """Print which cell is running."""
        self._label = label

    def stage(self, standing: Standing) -> None:
        """Print the progress of a stage: counts, rate, time left, last validation accuracy."""
        if time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            self.echo(f"        {self._label}: {standing.text}")

    def end_cell(self, label: str, outcome: str) -> None:
        """Print the outcome of a cell."""
        self.n_done += 1
        self.echo(f"[{self.n_done}/{self.n_cells}] {label}: {outcome}")
        self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Print one line that the user should know."""
        self.echo(line)


class LiveDisplay(PlainDisplay):
    """The current cell, and progress bars of the suite's cells and the cell's stage, with notes.

    Args:
        n_cells: cells of the suite.
        echo: as elsewhere; not used, lines go above the bars.
        console: a `rich.console.Console`; None takes the terminal's.
    """

    def __init__(
        self, n_cells: int, echo: Callable[[str], object], console: Console | None = None
    ) -> None:
        super().__init__(n_cells, echo)
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        display = self
        self._notes = ""

        class Bars(Progress):
            """Bars, notes and an empty line below, because tox forwards only whole lines."""

            def get_renderables(self) -> Iterator[Any]:
                yield Text(display._label, no_wrap=True, overflow="ellipsis")
                yield from super().get_renderables()
                yield Text(display._notes, no_wrap=True, overflow="ellipsis")
                yield ""

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            transient=True,
            console=console,
        )
        self._cells = self._bars.add_task("cells", total=n_cells)
        self._stage = self._bars.add_task("", total=None, visible=False)
        self._stage_label: str | None = None

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bars.stop()

    def stage(self, standing: Standing) -> None:
        """Move the second bar; a new label resets it."""
        if standing.stage != self._stage_label or standing.done == 0:
            self._stage_label = label = standing.stage
            room = max(LEAST_LABEL, self._bars.console.width - BESIDE_LABEL)
            short = label if len(label) <= room else f"{label[: room - 1]}…"
            self._bars.reset(self._stage, total=standing.total, visible=True, description=short)
        self._notes = ", ".join(standing.notes)
        self._bars.update(self._stage, completed=standing.done, total=standing.total)

    def end_cell(self, label: str, outcome: str) -> None:
        """Print the outcome above the bars and advance the first."""
        self.n_done += 1
        self._bars.console.print(f"[{self.n_done}/{self.n_cells}] {label}: {outcome}", markup=False)
        self._bars.update(self._cells, completed=self.n_done)
        self._bars.update(self._stage, visible=False)
        self._stage_label, self._notes = None, ""

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, markup=False)


def make_display(n_cells: int, echo: Callable[[str], object], live: bool) -> PlainDisplay:
    """Return the display that suits the output."""
    return LiveDisplay(n_cells, echo) if live else PlainDisplay(n_cells, echo)
