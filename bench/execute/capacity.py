"""How many processes compute a run: as many as its devices, cores and the cells' memory allow."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.execute.plan import Request, ResolvedSuite
from bench.processes import available_cores
from bench.suites.cell import Cell

SHARE = 0.9
"""Of the memory that is there, processes are given so much."""
GIB = 2**30


@dataclass(frozen=True)
class Capacity:
    """The device of each process that computes, and why there are so many.

    `memory` and `limit`, bytes: a cell's at the peak, as far as known, and what there is for all.
    """

    devices: tuple[str | None, ...]
    why: str
    memory: int | None = None
    limit: int = 0

    @property
    def text(self) -> str:
        """The same in words."""
        n = len(self.devices)
        return f"{n} process{'es' if n > 1 else ''} ({self.why})"

    @property
    def of_memory(self) -> str:
        """What a user should know of a process that died for want of memory."""
        expected = f"{self.memory / GIB:.1f} GB" if self.memory else "an unknown amount"
        return f"cells like it took {expected}, the limit for all is {self.limit / GIB:.1f} GB"


def capacity(plan: ResolvedSuite, cells: Sequence[Cell], request: Request) -> Capacity:
    """Return how many processes compute some cells of a plan on this machine.

    As many as the user asks for, else one per accelerator that `--device` names, else as many as
    cores and memory allow; never more than there are things to do.
    """
    from bench.execute.devices import devices_of
    from bench.execute.scenario import n_lacking

    devices = devices_of(request.device)
    useful = max(1, len(cells), n_lacking(plan, cells, request))
    memory, limit = peak_memory(plan, cells, request), memory_limit()
    if request.jobs is not None:
        n, why = min(request.jobs, useful), "--jobs"
    elif devices[0].type != "cpu":
        n, why = min(len(devices), useful), "one per device"
    else:
        n, why = _by_cores_and_memory(request.threads, memory, limit, useful)
    named = [request.device] if devices[0].type == "cpu" else list(map(str, devices))
    return Capacity(tuple(named[index % len(named)] for index in range(n)), why, memory, limit)


def _by_cores_and_memory(
    threads: int, memory: int | None, limit: int, useful: int
) -> tuple[int, str]:
    """Return how many processes compute on a CPU, and why."""
    cores = max(1, available_cores() // threads)
    if min(cores, useful) == 1:
        return 1, f"{available_cores()} cores" if useful > 1 else "there is one thing to do"
    if memory is None:
        return 1, "nothing like a cell was ever measured, so its memory is not known"
    fitting = max(1, int(SHARE * limit / memory))
    n = min(cores, fitting, useful)
    each = f"{memory / GIB:.1f} of {limit / GIB:.1f} GB per process"
    return n, each if n == fitting < min(cores, useful) else f"{available_cores()} cores, {each}"


def peak_memory(plan: ResolvedSuite, cells: Sequence[Cell], request: Request) -> int | None:
    """Return the bytes that the largest of some cells takes at the peak.

    A cell that is like none that was measured counts as the largest measured one of its network
    and image size. None where there is no such one, either.
    """
    from bench.execute.estimate import estimator_for

    estimator = estimator_for(plan, request)
    kinds = {
        (one.method, one.learner, one.calibration, one.net, one.datasets, one.architectures): one
        for one in cells
    }
    found = [estimator.memory(one) or estimator.most_memory(one) for one in kinds.values()]
    known = [one for one in found if one is not None]
    return max(known) if known and len(known) == len(found) else None


def memory_limit() -> int:
    """Return the bytes of memory that this process and those that it starts may take in all."""
    return min([psutil.virtual_memory().available, *_group_limits(), *_user_limits()])


def _group_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return what the control groups of this process leave (Linux, version 2), each its own.

    What files leave in memory is given up when it is needed, so only `anon` counts as used.
    """
    found = []
    with contextlib.suppress(OSError, StopIteration):
        lines = own.read_text(encoding="utf-8").splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::"))
        folder = root / group.lstrip("/")
        for one in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError, KeyError):
                limit = int((one / "memory.max").read_text(encoding="ascii"))
                used = dict(map(str.split, (one / "memory.stat").read_text("ascii").splitlines()))
                found.append(max(0, limit - int(used["anon"])))
    return found


def _user_limits() -> list[int]:
    """Return the limits that a shell's `ulimit` sets (POSIX)."""
    try:
        import resource
    except ImportError:
        return []
    kinds = (resource.RLIMIT_RSS, resource.RLIMIT_AS, resource.RLIMIT_DATA)
    limits = [resource.getrlimit(kind)[0] for kind in kinds]
    return [one for one in limits if one not in (resource.RLIM_INFINITY, -1) and one < math.inf]
