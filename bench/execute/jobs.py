"""Processes of this machine that share the cells of a run."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.execute.capacity import Capacity
from bench.execute.progress import Display, Standing
from bench.execute.sharing import Ended, Order, Unit, share
from bench.execute.worker import Setup, setup_of
from bench.suites.cell import Cell


class Process:
    """A process that computes.

    Args:
        setup: what it is told first.
        heard: called in another thread with this and each thing that it says; None at its end.
    """

    def __init__(self, setup: Setup, heard: Callable[[Process, object], None]) -> None:
        own_group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.execute.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(one or os.curdir for one in sys.path)},
            **own_group,  # a terminal's Ctrl-C reaches the one that started it, which passes it on
        )
        self.unit: Unit | None = None
        self._heard = heard
        self.tell(setup)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def start(self, unit: Unit) -> None:
        """Give it a unit."""
        self.unit = unit
        self.tell(unit)

    def tell(self, command: object) -> None:
        """Send something; one that is gone is noticed elsewhere."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            pickle.dump(command, self._process.stdin)
            self._process.stdin.flush()

    def how_it_ended(self) -> str:
        """Say how it ended."""
        status = self._process.wait()
        if status >= 0:
            return f"process {self.pid} ended with status {status}"
        return f"process {self.pid} was ended by {signal.Signals(-status).name}"

    def let_end(self) -> None:
        """Let it end: at once, or after it has saved what it is at."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self) -> None:
        """Wait for its end."""
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                self._heard(self, pickle.load(self._process.stdout))
        self._heard(self, None)


class Processes:
    """A crew of processes of this machine.

    One that dies is not replaced, for it may have died for want of memory, unless it was the last.

    Args:
        setups: what each is told.
        display: where progress is shown.
        why: adds to the reason of a cell whose process was killed.
    """

    def __init__(self, setups: Sequence[Setup], display: Display, why: str = "") -> None:
        self._setups, self._display, self._why = setups, display, why
        self._events: queue.SimpleQueue[tuple[Process, Any]] = queue.SimpleQueue()
        self._all = [self._new(setup) for setup in setups]
        self._told = False

    @property
    def size(self) -> int:
        """How many units it may do at a time."""
        return len(self._setups)

    @property
    def is_free(self) -> bool:
        """Whether one has nothing to do, or has to be started anew."""
        return not self._all or any(one.unit is None for one in self._all)

    def start(self, unit: Unit) -> None:
        """Give a unit to the first that has none."""
        if not self._all:
            self._all.append(self._new(self._setups[0]))
        next(one for one in self._all if one.unit is None).start(unit)

    def ended(self, seconds: float) -> list[Ended]:
        """Return the units that ended; wait for something to be said at most so many seconds."""
        found: list[Ended] = []
        with contextlib.suppress(queue.Empty):
            found += self._take(*self._events.get(timeout=seconds))
            while True:
                found += self._take(*self._events.get_nowait())
        return found

    def stop(self, signum: int) -> None:
        """Ask all, once, to save what they are at."""
        for one in self._all if not self._told else ():
            one.tell(signum)
        self._told = True

    def end(self) -> None:
        """End all; what they are at is saved."""
        for one in self._all:
            one.let_end()
        for one in self._all:
            one.wait()

    def _new(self, setup: Setup) -> Process:
        return Process(setup, lambda one, event: self._events.put((one, event)))

    def _take(self, one: Process, event: object) -> Iterator[Ended]:
        unit = one.unit
        if event is None:
            self._all.remove(one)
            if unit is not None:
                yield Ended(unit, lost=self._lost(one))
        elif isinstance(event, str):
            self._display.say(event, unit.cell.label if unit else "")
        elif isinstance(event, Ended) and unit is not None:
            one.unit = None
            yield replace(event, unit=unit)
        elif isinstance(event, Standing) and unit is not None:
            self._display.stage(unit.label, event)

    def _lost(self, one: Process) -> str:
        how = one.how_it_ended()
        return f"{how}, as for want of memory{self._why}" if "SIGKILL" in how else how


def run_jobs(order: Order, capacity: Capacity) -> Iterator[tuple[Cell, Path]]:
    """Run cells in processes of this machine; yield each with its folder as it ends.

    Args:
        order: what is run.
        capacity: in how many processes, and on which devices.
    """
    setup = setup_of(order)
    setups = [
        replace(setup, request=replace(setup.request, device=device)) for device in capacity.devices
    ]
    crew = Processes(setups, order.display, f"; {capacity.of_memory}")
    try:
        yield from share(order.cells, crew, order.display, order.keeping)
    finally:
        crew.end()
