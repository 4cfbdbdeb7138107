"""The one loop that gives the cells of a run to who computes: this process, others, or Dask.

Several runs of one folder, on any machines, share its cells by leases (`bench.leases`). What
another process is at is left to it and tried again later. Who finds no cell to run trains teachers
that a cell needs; who can do nothing but wait says for whom. Importing this needs no torch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.checkpoints import Keeping
from bench.errors import BrokenOff
from bench.execute.machine import loading, prepare_process
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.progress import Display, Progress
from bench.leases import LOOK_EVERY, Busy
from bench.stops import Stop, Stopped
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState

TRIES = 2
"""A cell with which so many processes died is recorded as failed."""


@dataclass(frozen=True)
class Unit:
    """A cell to run; or, where `helps`, only the teachers that it needs and nobody is training.

    `number`: the cell's place in the run. `failed`: why it is not tried, but recorded as failed.
    """

    number: int
    cell: Cell
    helps: bool = False
    failed: str = ""

    @property
    def label(self) -> str:
        """The unit in words."""
        return f"teachers for {self.cell.label}" if self.helps else self.cell.label


@dataclass(frozen=True)
class Ended:
    """How a unit ended: with the cell's `folder`, or in one of the other ways.

    `busy`: another process is at something that it needs. `signum`: the signal that asked for the
    end; `kept`: what was saved then, perhaps nothing. `lost`: how the process ended that had it.
    `error`: what ends the run. `said`: what the user should know and was not told yet.
    """

    unit: Unit
    folder: Path | None = None
    busy: Busy | None = None
    signum: int | None = None
    kept: str = ""
    lost: str = ""
    error: Exception | None = None
    said: tuple[str, ...] = ()


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
        from bench.execute.scenario import may_train

        for number, cell in self._left.items():
            pool = cell.pool_settings
            if self._helps[pool] < self._size and may_train(cell):
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


@loading()
def open_state(
    suite: str, datasets: Sequence[str], request: Request, progress: Progress, keeping: Keeping
) -> RunState:
    """Return the state of a process that works for a run: its data open, its device chosen.

    Args:
        suite: name of the suite.
        datasets: names of all data sets that its cells may need.
        request: where and how.
        progress: shows how far the work is.
        keeping: how often checkpoints are written, and whether to end.
    """
    from bench.data.sources import dataset_source, open_data
    from bench.execute.devices import use_device
    from bench.execute.state import RunState

    prepare_process(request.threads)
    data = {
        name: open_data(
            dataset_source(name, request.dataset_dirs),
            request.cache,
            request.data_dir,
            request.dataset_dirs.get(name),
        )
        for name in datasets
    }
    return RunState(
        suite=suite,
        runs=request.runs,
        cache=request.cache,
        device=use_device(request.device),
        data=data,
        command=request.command,
        progress=progress,
        keeping=keeping,
        trust_stored=request.trust_stored,
        time_limit=request.time_limit,
    )


def run_unit(unit: Unit, state: RunState) -> Ended:
    """Do a unit of work in this process, and say how it ended.

    Raises:
        Exception: what is no matter of the cell, as a full disk.
    """
    from bench.execute.cell import fail_cell, run_cell
    from bench.execute.state import own_pool

    try:
        state.keeping.stop.check()
        if unit.helps:
            with contextlib.suppress(Exception):  # what fails fails the cells, which say why
                own_pool(unit.cell, state)
            return Ended(unit)
        if unit.failed:
            return Ended(unit, fail_cell(unit.cell, state, unit.failed))
        return Ended(unit, run_cell(unit.cell, state))
    except Busy as busy:
        return Ended(unit, busy=busy)
    except Stopped as stopped:
        return Ended(unit, signum=stopped.signum, kept=stopped.kept)
