"""The one loop that gives the cells of a run to who computes: this process, others, or Dask.

Several runs of one folder, on any machines, share its cells by leases (`bench.leases`). What
another process is at is left to it and tried again later. Who finds no cell to run trains teachers
that a cell needs; who can do nothing but wait says for whom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.checkpoints import Keeping
from bench.errors import BrokenOff
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.progress import Display
from bench.execute.units import Ended, Unit, trains
from bench.leases import LOOK_EVERY, Busy
from bench.stops import Stop
from bench.suites.cell import Cell

TRIES = 2
"""A cell with which so many processes died is recorded as failed."""


@dataclass(frozen=True)
class Order:
    """What an engine is to do: some cells of a plan, where and how.

    `display` shows progress; `keeping` says how often checkpoints are written, and whether to end.
    """

    plan: ResolvedSuite
    cells: Sequence[Cell]
    request: Request
    display: Display
    keeping: Keeping


Engine = Callable[[Order], Iterator[tuple[Cell, Path]]]
"""Runs the cells of an order; yields each with its folder as it ends."""


class Crew(Protocol):
    """Who computes."""

    @property
    def size(self) -> int:
        """How many units it may do at a time."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether it can take a unit now."""
        ...

    def start(self, unit: Unit) -> None:
        """Take a unit."""

    def ended(self, seconds: float) -> Sequence[Ended]:
        """Return the units that ended; wait for one at most so many seconds, or while it runs."""
        ...

    def stop(self, signum: int) -> None:
        """Save what is under way, and begin nothing more."""


def share(
    cells: Sequence[Cell], crew: Crew, display: Display, keeping: Keeping
) -> Iterator[tuple[Cell, Path]]:
    """Have cells run; yield each with its folder as it ends, here or elsewhere.

    Raises:
        Stopped: the end was asked for; what was under way is saved.
        BrokenOff: no process can work.
        BenchError, OSError: something that is no matter of a single cell.
    """
    work, kept = _Work(cells, crew.size, display), []
    while work.goes_on(keeping.stop):
        while not keeping.stop.requested and crew.is_free and (unit := work.next()):
            crew.start(unit)
        if keeping.stop.signum is not None:
            crew.stop(keeping.stop.signum)
        elif not work.running:
            work.say_who_is_waited_for()
        for ended in crew.ended(LOOK_EVERY):
            work.end(ended)
            kept += [ended.kept] if ended.kept else []
            if ended.folder is not None:
                yield ended.unit.cell, ended.folder
    keeping.stop.check("; ".join(kept))


class _Work:
    """What is left of a run: cells in order, those under way, and whom others wait for."""

    def __init__(self, cells: Sequence[Cell], size: int, display: Display) -> None:
        self._left = dict(enumerate(cells))
        self._size, self._display = size, display
        self.running: list[Unit] = []
        self._busy: dict[int, Busy] = {}
        self._lost: dict[int, list[str]] = {}
        self._helps: Counter[str] = Counter()
        self._said: set[str] = set()

    def goes_on(self, stop: Stop) -> bool:
        """Tell whether there is something to do, or to wait for."""
        return bool(self.running or (self._left and not stop.requested))

    def next(self) -> Unit | None:
        """Return the next unit that can be begun, and note it; None where there is none."""
        if (unit := self._next_cell() or self._next_help()) is not None:
            self.running.append(unit)
            self._display.start_cell(unit.label)
        return unit

    def _next_cell(self) -> Unit | None:
        under_way = {unit.number for unit in self.running if not unit.helps}
        held: dict[Path, bool] = {}
        for number, cell in self._left.items():
            busy = self._busy.get(number)
            if busy is not None and busy.path not in held:
                held[busy.path] = busy.is_held
            if number not in under_way and not (busy and held[busy.path]):
                lost = self._lost.get(number, [])
                return Unit(number, cell, failed=lost[-1] if len(lost) >= TRIES else "")
        return None

    def _next_help(self) -> Unit | None:
        """Return the training of teachers for a cell that another process is at, or waits for."""
        for number, cell in self._left.items():
            pool = cell.pool_settings
            if self._helps[pool] < self._size and trains(cell):
                self._helps[pool] += 1
                return Unit(number, cell, helps=True)
        return None

    def end(self, ended: Ended) -> None:
        """Note how a unit ended.

        Raises:
            Exception: it ended with an error that is no matter of its cell.
        """
        unit = ended.unit
        self.running.remove(unit)
        if ended.error is not None:
            raise ended.error
        if ended.folder is None:
            self._display.leave_cell(unit.label)
        if ended.lost:
            self._display.say(f"{unit.label}: {ended.lost}; the others go on", unit.cell.label)
        if not unit.helps:
            self._end_cell(ended)

    def _end_cell(self, ended: Ended) -> None:
        number = ended.unit.number
        self._busy.pop(number, None)
        if ended.busy is not None:
            self._busy[number] = ended.busy
        if ended.lost and ended.unit.failed:
            raise BrokenOff(f"no process can record that {ended.unit.label} failed: {ended.lost}")
        if ended.lost:
            self._lost.setdefault(number, []).append(ended.lost)
        if ended.folder is not None:
            del self._left[number]

    def say_who_is_waited_for(self) -> None:
        """Say, once each, for what other processes this one waits."""
        for line in sorted({f"waiting: {busy}" for busy in self._busy.values()} - self._said):
            self._said.add(line)
            self._display.say(line)
