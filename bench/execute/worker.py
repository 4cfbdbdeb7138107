"""A process that computes for a run: it takes units from its standard input, and says what comes.

Only the process that started it is told of signals, and passes a request to end on. If that process
is gone, the work under way is saved, and this one ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from bench.checkpoints import Keeping
from bench.errors import BenchError
from bench.execute.plan import Request
from bench.execute.progress import Progress, Standing
from bench.execute.sharing import Ended, Order, Unit, open_state, run_unit
from bench.stops import Stop

SHOW_EVERY = 0.2
"""Least seconds between two reports of how far a stage is."""
IGNORED = ("SIGINT", "SIGHUP", "SIGUSR1")
"""Signals that a terminal or a queue sends to all processes: the one that started this tells it."""


@dataclass(frozen=True)
class Setup:
    """What a process is told before its first unit: names of suite and data sets, and where."""

    suite: str
    datasets: tuple[str, ...]
    request: Request


def setup_of(order: Order) -> Setup:
    """Return what each process is told that works for an order."""
    names = sorted({name for cell in order.cells for name in cell.datasets})
    return Setup(order.plan.suite.name, tuple(names), order.request)


class _Worker:
    """The work of this process.

    Args:
        commands: pickles of the `Setup`, then of units and of signals that ask for the end.
        send: takes what is said: a `Standing`, a line, or an `Ended`.
    """

    def __init__(self, commands: BinaryIO, send: Callable[[object], None]) -> None:
        self._commands, self._send = commands, send
        self._units: queue.Queue[Unit | None] = queue.Queue()
        self.stop = Stop()
        self._at_work = False
        self._shown = ("", 0.0)

    def run(self) -> None:
        """Do what comes until there is no more."""
        setup: Setup = pickle.load(self._commands)
        threading.Thread(target=self._listen, daemon=True).start()
        keeping = Keeping(setup.request.checkpoint_every, self.stop, self._send)
        state = None
        while not self.stop.requested and (unit := self._units.get()) is not None:
            self._at_work = True
            try:
                state = state or open_state(
                    setup.suite, setup.datasets, setup.request, Progress(self._show), keeping
                )
                ended = run_unit(unit, state)
            except Exception as error:
                ended = Ended(unit, error=_sendable(error))
            self._at_work = False
            self._send(ended)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                command: Any = pickle.load(self._commands)
                if isinstance(command, Unit):
                    self._units.put(command)
                else:
                    self.stop.request(command)
        if self._at_work and self.stop.requested:  # ended at once, by a second signal
            os._exit(128 + (self.stop.signum or 0))
        self.stop.request(signal.SIGTERM)  # nobody is there for what comes of it, begun or not
        self._units.put(None)

    def _show(self, standing: Standing) -> None:
        stage, since = self._shown
        now = time.monotonic()
        if stage != standing.stage or now - since >= SHOW_EVERY or standing.done >= standing.total:
            self._shown = standing.stage, now
            self._send(standing)


def _sendable(error: Exception) -> Exception:
    """Return an error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return BenchError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    """Work for the process at the other end of standard input and output."""
    for name in IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no event
    lock = threading.Lock()

    def send(event: object) -> None:
        with lock, contextlib.suppress(OSError):  # nobody listens: the work is saved all the same
            pickle.dump(event, events)
            events.flush()

    worker = _Worker(sys.stdin.buffer, send)
    signal.signal(signal.SIGTERM, lambda signum, frame: worker.stop.request(signum))
    worker.run()
    os._exit(0)  # there is nothing left to tidy up, and torch takes its time


if __name__ == "__main__":
    main()
