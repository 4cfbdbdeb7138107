"""Running a plan: checks before the first cell, then its cells, here or elsewhere."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.checkpoints import Keeping
from bench.data.tasks import check_shape
from bench.errors import BenchError
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.progress import Display, Progress, announced
from bench.execute.sharing import Ended, Engine, Order, Unit, run_unit, share
from bench.execute.status import Status, remember_code, statuses
from bench.results.maker import trusted
from bench.results.store import StoredRecord, add_warning, read_record
from bench.stops import Stop
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState


def check_plan(plan: ResolvedSuite, request: Request) -> list[Status]:
    """Raise, before any cell starts, the errors that would stop the run.

    Returns:
        What there is of each cell, in order.

    Raises:
        BenchError: missing data, a task shape that the data cannot serve, a device that is not
            there, a folder that cannot be written.
    """
    for reason in plan.missing.values():
        raise BenchError(reason)
    states = statuses(plan, request)
    todo = unfinished(plan, states)
    if todo and request.device not in (None, "auto", "cpu"):
        from bench.execute.devices import devices_of

        devices_of(request.device)
    for cell in todo:
        _check_precision(cell, request)
        method = registry.load("method", cell.method)
        wanted = {"test"} | ({"val"} if method.validates else set())
        wanted |= {"train"} if method.knowledge == "real_data" else set()
        for name in cell.datasets:
            for split in sorted(wanted):
                check_shape(split, plan.data[name].splits[split].counts, cell.shape)
    _check_writable("runs", request.runs)
    if not request.cache.is_dir() or _writes_teachers(plan, todo, request):
        _check_writable("cache", request.cache)
    return states


def _writes_teachers(plan: ResolvedSuite, cells: Sequence[Cell], request: Request) -> bool:
    """Tell whether teachers are lacking; a cache that holds all may be one that is only read."""
    if not cells:
        return False
    from bench.execute.scenario import n_lacking

    return n_lacking(plan, cells, request) > 0


def _check_precision(cell: Cell, request: Request) -> None:
    """Refuse a precision that the device lacks; asks for the device only where it matters."""
    if cell.protocol.precision == "float32":
        return
    from bench.execute.devices import choose_device
    from bench.nets.precision import check_precision

    check_precision(cell.protocol.precision, choose_device(request.device))


def _check_writable(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchError(
            f"{name} folder '{folder}' is not writable ({error.strerror}); "
            f"name another with --{name}"
        ) from None


def unfinished(plan: ResolvedSuite, states: Sequence[Status]) -> list[Cell]:
    """Return the cells that a run would make, in plan order, by what there is of each."""
    return [cell for cell, state in zip(plan.cells, states, strict=True) if not state.is_finished]


class _Here:
    """A crew of this process alone."""

    size = 1

    def __init__(self, state: RunState, display: Display) -> None:
        self._state, self._label = state, ""
        self._unit: Unit | None = None
        self._about = ""
        state.progress = Progress(lambda standing: display.stage(self._label, standing))
        state.keeping = replace(state.keeping, say=lambda line: display.say(line, self._about))

    @property
    def is_free(self) -> bool:
        return self._unit is None

    def start(self, unit: Unit) -> None:
        self._unit, self._label, self._about = unit, unit.label, unit.cell.label

    def ended(self, seconds: float) -> list[Ended]:
        if self._unit is None:
            time.sleep(seconds)
            return []
        ended, self._unit = run_unit(self._unit, self._state), None
        if ended.signum is not None:
            self._state.keeping.stop.request(ended.signum)
        return [ended]

    def stop(self, signum: int) -> None:
        """Nothing: the work under way looks at the same request."""


def run_inline(order: Order) -> Iterator[tuple[Cell, Path]]:
    """Run cells in this process, one after another; yield each with its folder as it ends."""
    from bench.execute.devices import use_device
    from bench.execute.machine import prepare_process
    from bench.execute.state import RunState

    request, device = order.request, use_device(order.request.device)
    prepare_process(request.threads)
    state = RunState(
        suite=order.plan.suite.name,
        runs=request.runs,
        cache=request.cache,
        device=device,
        data=order.plan.data,
        command=request.command,
        keeping=order.keeping,
        trust_stored=request.trust_stored,
        time_limit=request.time_limit,
    )
    crew = _Here(state, order.display)
    yield from share(order.cells, crew, order.display, order.keeping)


def run_here(order: Order) -> Iterator[tuple[Cell, Path]]:
    """Run cells in as many processes of this machine as `capacity` says; see `run_inline`."""
    request = order.request
    if request.jobs == 1:  # nothing to find out
        yield from run_inline(order)
        return
    from bench.execute.capacity import capacity

    found = capacity(order.plan, order.cells, request)
    if len(found.devices) > 1 or (len(order.cells) > 1 and request.jobs is None):
        order.display.say(found.text)
    if len(found.devices) == 1:
        yield from run_inline(replace(order, request=replace(request, device=found.devices[0])))
    else:
        from bench.execute.jobs import run_jobs

        yield from run_jobs(order, found)


def run_plan(
    plan: ResolvedSuite,
    request: Request,
    execute: Engine,
    display: Display,
    finished: Callable[[StoredRecord], object],
    known: Sequence[Status] | None = None,
) -> list[StoredRecord]:
    """Run what is not finished and return every record of the plan, in plan order.

    A damaged cell is run again; a record that only a newer version can read is left out. Each is
    said.

    Args:
        plan: what is run.
        request: where and how.
        execute: the engine, as `run_inline`.
        display: where progress is shown.
        finished: called in this process with each record as it comes in.
        known: what there is of each cell, where the caller has just asked for it.

    Raises:
        Stopped: a signal asked for the end; what is done is kept.
    """
    states = list(zip(plan.cells, known or statuses(plan, request), strict=True))
    stored = {cell.hash(plan.digests): state.stored for cell, state in states}
    for cell, state in states:
        if state.doubt and state.is_finished:
            add_warning(state.folder, trusted(state.doubt))
            stored[state.folder.name] = read_record(state.folder)
        elif state.doubt:
            display.say(f"{cell.label}: {state.doubt}; running it again", cell.label)
        elif state.problem:
            what = "left out" if state.is_finished else "running the cell again"
            display.say(f"{state.problem}; {what}", cell.label)
    todo = unfinished(plan, [state for _, state in states])
    keeping = Keeping(request.checkpoint_every, Stop(), display.say)
    order = Order(plan, todo, request, display, keeping)
    for cell, folder in _executed(order, execute) if todo else ():
        one = stored[cell.hash(plan.digests)] = read_record(folder)
        finished(one)
        display.end_cell(cell.label, outcome(one))
    if todo:
        remember_code(plan.cells, request)
    return [one for one in stored.values() if one is not None]


def _executed(order: Order, execute: Engine) -> Iterator[tuple[Cell, Path]]:
    """Run cells where signals are requests to end, and another process may see what runs."""
    plan, request = order.plan, order.request
    labels = {cell.hash(plan.digests): cell.label for cell in plan.cells}
    folder = request.runs / plan.suite.name
    with order.keeping.stop.on_signals(), announced(folder, request.command, labels):
        yield from execute(order)


def outcome(stored: StoredRecord) -> str:
    """Say in a few words how a cell ended."""
    record = stored.record
    if record.accuracy is None:
        return f"{record.status}: {record.reason}"
    mean, half = 100 * record.accuracy.mean, 100 * record.accuracy.ci95
    fit = "reused" if record.fit and record.fit.reused else f"{record.timing.fit_s:.1f} s"
    return f"{mean:.1f} ± {half:.1f} %, fit {fit}, test {record.timing.test_s:.1f} s"
