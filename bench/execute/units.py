"""Units of work that a process does for a run, and how each ends. Importing this needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.checkpoints import Keeping
from bench.execute.machine import loading, prepare_process
from bench.execute.plan import Request
from bench.execute.progress import Progress
from bench.leases import Busy
from bench.stops import Stopped
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState


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
    from bench.data.opening import open_data
    from bench.data.sources import dataset_source
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


def trains(cell: Cell) -> bool:
    """Tell whether a cell may need teachers that a run trains."""
    from bench.execute.scenario import refused_by_plan

    method = registry.load("method", cell.method)
    return method.uses_pool and cell.pool is None and refused_by_plan(method, cell) is None
