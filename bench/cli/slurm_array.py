"""`bench run --executor slurm`: an array of Slurm tasks runs the cells, each by `bench run`.

The tasks share the cells by leases, as any processes do, so this process only submits the array,
tells what it finds finished, and submits again where the time of the tasks was too short.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.cli.plan_table import plan_rows
from bench.cli.slurm import sbatch_script
from bench.errors import BenchError, BrokenOff
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.progress import Display, standing_of, under_way
from bench.execute.sharing import Order
from bench.execute.status import cell_folder
from bench.results.files import stamp
from bench.results.store import DONE
from bench.stops import Stop
from bench.suites.cell import Cell

N_TASKS = 4
"""Tasks of an array where `--jobs` does not say how many."""
TRIES = 3
"""Jobs in a row that may end with nothing done: on a slow file system a start may take minutes."""
LOOK_EVERY = 2.0
"""Seconds between two looks at the folder and at the queue."""


class Array:
    """An engine that gives the cells of a run to Slurm.

    Args:
        options: as the user gave them to the verb.
        limit: the time limit of each task; None takes it from the plan.

    Raises:
        BenchError: Slurm's commands are not here.
    """

    def __init__(self, options: Mapping[str, Any], limit: str | None) -> None:
        if lacking := [one for one in ("sbatch", "squeue", "scancel") if shutil.which(one) is None]:
            raise BenchError(
                f"--executor slurm needs {', '.join(lacking)}, not found here; "
                "run it on a machine that submits jobs, or leave the option out"
            )
        self._options, self._limit = options, limit

    def __call__(self, order: Order) -> Iterator[tuple[Cell, Path]]:
        """Have cells run; yield each with its folder as it is finished.

        Raises:
            BenchError: Slurm does not take the job, and why.
            BrokenOff: an array ended, and nothing was done.
            Stopped: the end was asked for; the tasks saved what they were at.
        """
        plan, request, stop = order.plan, order.request.resolved(), order.keeping.stop
        left = {cell_folder(plan, request.runs, cell): cell for cell in order.cells}
        before = {folder: _stamp(folder) for folder in left}
        watched = _Watched(left, request, order.display)
        in_vain = 0
        while left:
            n_left, kept = len(left), _kept(request)
            job = self._submit(plan, request, order.display)
            for _ in _looks(job, stop):
                watched.look()
                for folder in [one for one in left if _stamp(one) not in (None, before[one])]:
                    watched.leave(folder)
                    yield left.pop(folder), folder
            stop.check()
            in_vain = in_vain + 1 if (len(left), _kept(request)) == (n_left, kept) else 0
            if in_vain == TRIES:
                raise BrokenOff(
                    f"Slurm job {job} and {TRIES - 1} before it ended with nothing done; "
                    f"what its tasks printed is in {_output(plan, request)}"
                )

    def _submit(self, plan: ResolvedSuite, request: Request, display: Display) -> str:
        """Submit an array for the cells that are not finished, and return its number."""
        name, n_tasks = plan.suite.name, request.jobs or N_TASKS
        more = ["--no-mlflow", "--no-figures", f"--checkpoint-every={request.checkpoint_every:g}"]
        more += ["--trust-stored"] if request.trust_stored else []
        more += [f"--time-limit={request.time_limit:g}"] if request.time_limit else []
        program, rows = (sys.executable, "-m", "bench"), plan_rows(plan, request)
        script = sbatch_script(
            self._options, request, name, rows, n_tasks, self._limit, program, more
        )
        _output(plan, request).mkdir(parents=True, exist_ok=True)
        place = str(_output(plan, request)).replace("%", "%%")
        done = _call("sbatch", "--parsable", f"--output={place}/%A-%a.txt", script=script)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise BenchError(f"Slurm did not take the job: {reason}")
        job = done.stdout.strip().partition(";")[0]
        display.say(f"Slurm job {job}: its tasks print to {_output(plan, request)}")
        return job


class _Watched:
    """Shows how far the cells are that tasks are at, as the files in their folders say."""

    def __init__(self, cells: Mapping[Path, Cell], request: Request, display: Display) -> None:
        self._labels = {folder: cell.label for folder, cell in cells.items()}
        self._runs, self._display = request.runs, display
        self._at: set[Path] = set()

    def look(self) -> None:
        """Show what is under way now."""
        found = {folder: facts for folder, facts in under_way(self._runs) if folder in self._labels}
        for folder in sorted(self._at - found.keys()):
            self.leave(folder)
        for folder, facts in found.items():
            if folder not in self._at:
                self._display.start_cell(self._labels[folder])
            self._display.stage(self._labels[folder], standing_of(facts))
        self._at = set(found)

    def leave(self, folder: Path) -> None:
        """Show a cell no longer."""
        if folder in self._at:
            self._at.remove(folder)
            self._display.leave_cell(self._labels[folder])


def _looks(job: str, stop: Stop) -> Iterator[None]:
    """Yield now and then until a job is over, and once more; have it end where that is asked."""
    told = False
    while _is_there(job):
        if stop.requested and not told:
            _call("scancel", "--state=PENDING", job)
            _call("scancel", "--batch", "--signal=USR1", job)
            told = True
        yield
        time.sleep(LOOK_EVERY)
    yield


def _is_there(job: str) -> bool:
    """Tell whether some task of a job waits or runs; where the queue is silent, it may."""
    done = _call("squeue", "--noheader", f"--jobs={job}", "--format=%T")
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _call(*words: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=script, capture_output=True, text=True)


def _stamp(folder: Path) -> str | None:
    """Return what tells that a cell was finished anew; None where it is not finished."""
    try:
        return stamp(folder / DONE)
    except OSError:
        return None


def _kept(request: Request) -> set[Path]:
    """Return what tasks keep beside finished cells: a task whose time is over did something."""
    found = [*request.cache.glob("fits/*/*"), *request.cache.glob("teachers/*/*")]
    return {*found, *request.runs.glob("*/*/checkpoint-*")}


def _output(plan: ResolvedSuite, request: Request) -> Path:
    """Return the folder for what the tasks print."""
    return request.runs / plan.suite.name / ".slurm"
