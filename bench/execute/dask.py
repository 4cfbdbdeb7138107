"""Dask workers, on one or many machines, that share the cells of a run through a shared folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkpoints import Keeping
from bench.errors import BenchError, BrokenOff
from bench.execute.capacity import Capacity, capacity
from bench.execute.progress import PROGRESS, Progress, read, standing_of
from bench.execute.sharing import Ended, Order, Unit, open_state, run_unit, share
from bench.execute.status import cell_folder
from bench.execute.worker import Setup, setup_of
from bench.stops import Stop
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState

SCHEDULER = "PURER_BENCH_SCHEDULER"
SAY_AFTER = 30.0
"""Seconds without a worker after which the user is told."""
ASK, ASKS = 2.0, 15
"""Seconds in which a worker that is there hands over an answer, and how often it is asked."""
NO_MEMORY_RULES = {
    f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")
}
"""A paused worker would wait for ever: memory that a cell freed stays with the process."""


def run_dask(order: Order) -> Iterator[tuple[Cell, Path]]:
    """Run cells on Dask workers; yield each with its folder as it ends.

    `PURER_BENCH_SCHEDULER` names a scheduler's address or file; without it, a local cluster is
    started, of as many workers as `capacity` says.

    Raises:
        BenchError: the extra is not installed, the scheduler does not answer, or a worker does not
            see the runs folder.
        BrokenOff: the scheduler is gone, or there has been no worker for too long.
        Stopped: the end was asked for; each worker saved what it was at.
    """
    try:
        import dask.config
        from distributed import Client, LocalCluster
    except ImportError:
        raise BenchError(
            "--executor dask needs the extra 'dask'; pip install 'purer-bench[dask]'"
        ) from None
    for name in ("distributed", "distributed.client", "asyncio"):  # what matters is said in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    order, target = replace(order, request=order.request.resolved()), os.environ.get(SCHEDULER)
    room = capacity(order.plan, order.cells, order.request)
    with (
        dask.config.set(NO_MEMORY_RULES),
        _cluster(LocalCluster, target, room) as cluster,
        _client(Client, cluster, target) as client,
    ):
        crew = Workers(client, order, [] if target else room.devices, room)
        if not target:
            order.display.say(f"Dask: {room.text}")
        yield from share(order.cells, crew, order.display, order.keeping)


class Workers:
    """A crew of Dask workers, each of which does one unit at a time.

    Args:
        client: connected.
        order: what they are to do.
        devices: one for each worker of a local cluster; none for others, which have the request's.
        room: for the reason of a cell whose worker died.
    """

    def __init__(
        self, client: Any, order: Order, devices: Sequence[str | None], room: Capacity
    ) -> None:
        self._client, self._setup, self._devices = client, setup_of(order), list(devices)
        self._display, self._room, self._plan = order.display, room, order.plan
        self._run_id = uuid.uuid4().hex
        self._known: list[str] = []
        self._given: dict[str, str | None] = {}
        """the device of each worker that was met"""
        self._at: dict[Any, tuple[str, Unit]] = {}
        self._shown: dict[int, float] = {}
        """when the file of each cell that was shown last was written"""
        self._alone_since: float | None = None
        self._said = self._told = False

    @property
    def size(self) -> int:
        """How many units it may do at a time."""
        return max(1, len(self._there()))

    @property
    def is_free(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle())

    def start(self, unit: Unit) -> None:
        """Give a unit to a worker that has none."""
        worker = self._idle()[0]
        request = replace(self._setup.request, device=self._given[worker])
        future = self._client.submit(
            _work,
            replace(self._setup, request=request),
            unit,
            self._run_id,
            workers=[worker],
            allow_other_workers=False,
            pure=False,
        )
        self._at[future] = worker, unit

    def ended(self, seconds: float) -> list[Ended]:
        """Return the units that ended; wait for one at most so many seconds.

        Raises:
            BrokenOff: the scheduler is gone, or there has been no worker for too long.
        """
        self._check_alive()
        if not self._at:
            time.sleep(seconds)
            return []
        done = self._wait(seconds)
        self._check_alive()  # a scheduler that is gone takes all back
        there = self._there()
        gone = [one for one, (worker, _) in self._at.items() if worker not in there]
        for _, unit in self._at.values():
            self._show(unit)
        return [self._end(future) for future in {*done, *gone}]

    def stop(self, signum: int) -> None:
        """Ask all, once, to save what they are at."""
        if not self._told:
            self._client.run(_request_stop, self._run_id, signum, on_error="ignore")
        self._told = True

    def _wait(self, seconds: float) -> set[Any]:
        from distributed import wait

        with contextlib.suppress(TimeoutError, CancelledError):
            found: Any = wait([*self._at], timeout=seconds, return_when="FIRST_COMPLETED")
            return found.done
        return {one for one in self._at if one.status == "cancelled"}

    def _end(self, future: Any) -> Ended:
        worker, unit = self._at.pop(future)
        why = f"it died; {self._room.of_memory}"
        if (ended := self._answer(future, worker)) is not None:
            for line in ended.said:
                self._display.say(line, unit.cell.label)
            return replace(ended, unit=unit)
        with contextlib.suppress(OSError, CancelledError):
            if future.status == "error" and (error := future.exception(timeout=ASK)) is not None:
                why = f"{type(error).__name__}: {error}"
        future.cancel()
        return Ended(unit, lost=f"worker {worker} did not end it ({why})")

    def _answer(self, future: Any, worker: str) -> Ended | None:
        """Return what a worker answered; None where it died, and its answer with it."""
        for _ in range(ASKS):
            if future.status != "finished" or worker not in self._there():
                break
            with contextlib.suppress(OSError, CancelledError):  # also what takes too long
                return future.result(timeout=ASK)
        return None

    def _there(self) -> list[str]:
        """Return the workers by the scheduler's answer; what the client keeps may lack them."""
        with contextlib.suppress(OSError):
            self._known = list(self._client.nthreads())
        return self._known

    def _idle(self) -> list[str]:
        at_work = {worker for worker, _ in self._at.values()}
        idle = [worker for worker in self._there() if worker not in at_work]
        if new := [worker for worker in idle if worker not in self._given]:
            self._meet(new)
        return idle

    def _meet(self, workers: Sequence[str]) -> None:
        """Check that new workers see the runs folder, and give each of a local cluster a device."""
        _check_shared(self._client, workers, self._setup.request.runs)
        there = self._there()
        for worker in workers:
            taken = [self._given[one] for one in there if one in self._given]
            left = [one for one in self._devices if one not in taken]
            self._given[worker] = (left or self._devices or [self._setup.request.device])[0]

    def _check_alive(self) -> None:
        kept = f"what is finished is kept in {self._setup.request.runs}; run the same command again"
        if self._client.status != "running":
            raise BrokenOff(f"the Dask scheduler is gone; {kept}")
        if self._there():
            self._alone_since, self._said = None, False
            return
        now = time.monotonic()
        alone = now - (self._alone_since or now)
        self._alone_since = self._alone_since or now
        if alone > self._setup.request.worker_timeout:
            raise BrokenOff(f"no Dask worker for {alone:.0f} s (--worker-timeout); {kept}")
        if alone > SAY_AFTER and not self._said:
            self._display.say(f"no Dask worker for {alone:.0f} s; waiting for one")
            self._said = True

    def _show(self, unit: Unit) -> None:
        """Show how far a worker is, from the file that it writes into the cell's folder."""
        folder = cell_folder(self._plan, self._setup.request.runs, unit.cell)
        if unit.helps or (found := read(folder / PROGRESS)) is None:
            return
        if self._shown.get(unit.number) != found["updated"]:
            self._shown[unit.number] = found["updated"]
            self._display.stage(unit.label, standing_of(found))


def _cluster(local: Any, target: str | None, room: Capacity) -> Any:
    if target:
        return contextlib.nullcontext()
    n, own = len(room.devices), dict[str, Any](processes=True, dashboard_address=None)
    port = {"dashboard_address": "127.0.0.1:0"}  # any, so that none is warned to be taken
    own |= {"threads_per_worker": 1, "memory_limit": room.limit // n, "scheduler_kwargs": port}
    return local(n_workers=n, **own)


def _client(client: Any, cluster: Any, target: str | None) -> Any:
    try:
        if target and Path(target).is_file():
            return client(scheduler_file=target, timeout="20s")
        return client(target or cluster, timeout="20s")
    except (OSError, ValueError) as error:
        raise BenchError(
            f"Dask scheduler '{target}' does not answer ({error}); correct {SCHEDULER}"
        ) from None


def _check_shared(client: Any, workers: Sequence[str], runs: Path) -> None:
    token = runs / f".shared-{uuid.uuid4().hex}"
    token.touch()
    try:
        seen: Mapping[str, Any] = client.run(
            _exists, str(token), workers=[*workers], on_error="return"
        )
    finally:
        token.unlink(missing_ok=True)
    if blind := [worker for worker, found in seen.items() if found is False]:
        raise BenchError(
            f"runs folder '{runs}' is not seen by worker {blind[0]}; "
            "all workers must share it: name a shared folder with --runs"
        )


def _exists(path: str) -> bool:
    return Path(path).exists()


@functools.cache
def _stop_of(run_id: str) -> Stop:
    """In a worker: the request to end of a run that it works for."""
    return Stop()


_STATES: dict[str, RunState] = {}
"""In a worker: what it keeps between the cells of the last run that it worked for."""
_SAID: list[str] = []
"""In a worker: what the user should know of the unit under way."""


def _request_stop(run_id: str, signum: int) -> None:
    _stop_of(run_id).request(signum)


def _work(setup: Setup, unit: Unit, run_id: str) -> Ended:
    """In a worker: do a unit, and say how it ended; of what is raised, the crew says a line."""
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)  # which adds no traceback
    _SAID.clear()
    try:
        if run_id not in _STATES:
            _STATES.clear()
            keeping = Keeping(setup.request.checkpoint_every, _stop_of(run_id), _SAID.append)
            _STATES[run_id] = open_state(
                setup.suite, setup.datasets, setup.request, Progress(), keeping
            )
        ended = run_unit(unit, _STATES[run_id])
    except (BenchError, OSError) as error:
        ended = Ended(unit, error=error)
    return replace(ended, said=tuple(_SAID))
