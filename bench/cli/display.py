"""Progress: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.table import Table

    from bench.execute.progress import Standing
    from bench.suites.cell import Cell

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines of one cell."""

BAR_WIDTH = 24
BESIDE_LABEL = BAR_WIDTH + 36
"""Columns of a bar, counts of five digits, two times, and the spaces between."""
LEAST_LABEL = 12
LEAST_ROWS, BELOW_TABLE = 3, 6
"""Rows of the table, where there is less room for it it is left out; lines that stand around it."""
MOST_SHOWN = 8
"""Cells under way that are shown, with three lines each."""


class PlainDisplay:
    """One line per finished cell, and every ten seconds a line about the current stage."""

    def __init__(self, n_cells: int, echo: Callable[[str], object]) -> None:
        self.n_cells = n_cells
        self.echo = echo
        self.n_done = 0
        self._last: dict[str, float] = {}
        """when something was last printed of each cell under way"""

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
        """Take note of a cell that is under way."""
        self._last.setdefault(label, time.monotonic())

    def stage(self, label: str, standing: Standing) -> None:
        """Print the progress of a stage: counts, rate, time left, last validation accuracy."""
        if time.monotonic() - self._last.setdefault(label, 0.0) >= PLAIN_INTERVAL:
            self._last[label] = time.monotonic()
            self.echo(f"        {label}: {standing.text}")

    def leave_cell(self, label: str) -> None:
        """Take note of a cell that is left to another process."""
        self._last.pop(label, None)

    def end_cell(self, label: str, outcome: str) -> None:
        """Print the outcome of a cell."""
        self.n_done += 1
        self.echo(f"[{self.n_done}/{self.n_cells}] {label}: {outcome}")
        self._last.pop(label, None)

    def say(self, line: str, label: str = "") -> None:
        """Print one line that the user should know."""
        self.echo(line)


class QuietDisplay(PlainDisplay):
    """For output that a program reads: shows only what the user should know, and keeps it.

    Args:
        n_cells: cells of the suite.
        tell: prints a line elsewhere, as on standard error.
    """

    def __init__(self, n_cells: int, tell: Callable[[str], object]) -> None:
        super().__init__(n_cells, lambda line: None)
        self._tell = tell
        self.notices: dict[str, list[str]] = {}
        """the lines about each cell, by its label"""

    def say(self, line: str, label: str = "") -> None:
        """Print one line that the user should know, and keep it."""
        self._tell(line)
        self.notices.setdefault(label, []).append(line)


class LiveDisplay(PlainDisplay):
    """The accuracy table so far, a progress bar of the cells; of each under way a bar and notes.

    Args:
        n_cells: cells of the suite.
        echo: as elsewhere; not used, lines go above the bars.
        console: a `rich.console.Console`; None takes the terminal's.
        cells: what will be run, for the table; without them each outcome is a line above the bars.
    """

    def __init__(
        self,
        n_cells: int,
        echo: Callable[[str], object],
        console: Console | None = None,
        cells: Sequence[Cell] = (),
    ) -> None:
        super().__init__(n_cells, echo)
        from rich import get_console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from bench.cli.filling import FillingTable

        display = self
        self._shown: dict[str, _Shown] = {}
        self._table = FillingTable(cells) if cells else None
        self._console = console or get_console()

        class Bars(Progress):
            """Bars and an empty line below, because tox forwards only whole lines."""

            def get_renderables(self) -> Iterator[Any]:
                tables = {task.id: self.make_tasks_table([task]) for task in self.tasks}
                yield from display._rendered(tables)
                yield ""

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            transient=True,
            console=self._console,
        )
        self._cells = self._bars.add_task("cells", total=n_cells)

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bars.stop()

    def start_cell(self, label: str) -> None:
        """Show a cell that is under way."""
        if label not in self._shown:
            self._shown[label] = _Shown(self._bars.add_task("", total=None, visible=False))

    def stage(self, label: str, standing: Standing) -> None:
        """Move a cell's bar; another stage resets it."""
        self.start_cell(label)
        shown = self._shown[label]
        if standing.stage != shown.stage or standing.done == 0:
            shown.stage = standing.stage
            room = max(LEAST_LABEL, self._bars.console.width - BESIDE_LABEL)
            short = shown.stage if len(shown.stage) <= room else f"{shown.stage[: room - 1]}…"
            self._bars.reset(shown.bar, total=standing.total, visible=True, description=short)
        shown.notes = ", ".join(standing.notes)
        self._bars.update(shown.bar, completed=standing.done, total=standing.total)

    def leave_cell(self, label: str) -> None:
        """Show a cell no longer."""
        if (shown := self._shown.pop(label, None)) is not None:
            self._bars.remove_task(shown.bar)

    def end_cell(self, label: str, outcome: str) -> None:
        """Advance the first bar, and fill the table; where there is none, print the outcome.

        What is no accuracy is printed in any case: the table has no room for a reason.
        """
        self.n_done += 1
        self.leave_cell(label)
        if self._table is not None:
            self._table.fill(label, outcome)
        if self._table is None or not outcome[:1].isdigit():
            self.say(f"[{self.n_done}/{self.n_cells}] {label}: {outcome}")
        self._bars.update(self._cells, completed=self.n_done)

    def say(self, line: str, label: str = "") -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, markup=False)

    def _rendered(self, bars: dict[TaskID, Table]) -> Iterator[Any]:
        """Yield the table, the bar of the cells, and of each under way its name, bar and notes."""
        from rich.text import Text

        room = self._console.height - 3 * min(len(self._shown), MOST_SHOWN) - BELOW_TABLE
        if self._table is not None and room >= LEAST_ROWS:
            yield self._table.rendered(room)
            yield ""
        own = {shown.bar for shown in self._shown.values()}
        yield from (bar for number, bar in bars.items() if number not in own)
        for label, shown in [*self._shown.items()][:MOST_SHOWN]:
            yield Text(label, no_wrap=True, overflow="ellipsis")
            yield bars.get(shown.bar, "")
            yield Text(shown.notes, no_wrap=True, overflow="ellipsis")
        if (more := len(self._shown) - MOST_SHOWN) > 0:
            yield Text(f"and {more} more under way")


@dataclass
class _Shown:
    """What is shown of a cell under way: its bar, the stage that this is of, and notes."""

    bar: TaskID
    stage: str = ""
    notes: str = ""


def make_display(
    n_cells: int, echo: Callable[[str], object], live: bool, cells: Sequence[Cell] = ()
) -> PlainDisplay:
    """Return the display for a reader, on a terminal (`live`, see there for the cells) or not."""
    return LiveDisplay(n_cells, echo, cells=cells) if live else PlainDisplay(n_cells, echo)
