"""What there is of each cell of a suite, and whether the code of now made it.

Needs neither torch nor any plug-in where the digests of all codes are remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.execute.devices import choose_device
from bench.results.codebase import CodeBase, code_of_commit, installed_code, sources_digest
from bench.results.files import content_hash, recall, remember
from bench.results.maker import difference_of_code, other_threads
from bench.results.record import Code, Record
from bench.results.store import FINAL, StoredRecord, cell_state
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.plan import Request, ResolvedSuite

OUTDATED = "outdated"


@dataclass(frozen=True)
class Status:
    """What there is of a cell.

    `name` is as in `CellState`, or `missing data`, or `outdated`: a finished cell that other code
    or another number of threads made. `doubt` says how; it is there, too, where the cell counts as
    finished because the user trusts it. `problem` and `stored` are as in `CellState`.
    """

    name: str
    folder: Path
    doubt: str | None = None
    problem: str = ""
    stored: StoredRecord | None = None

    @property
    def is_finished(self) -> bool:
        """Whether a run leaves the cell as it is."""
        return self.name in FINAL


def statuses(plan: ResolvedSuite, request: Request) -> list[Status]:
    """Return what there is of each cell of a plan, in order."""
    known, now = CodeMemory(request.cache), here(request)
    found = [_status(plan, request, cell, known, now) for cell in plan.cells]
    known.save()
    return found


def remember_code(cells: Sequence[Cell], request: Request) -> None:
    """Keep in the cache what looking at finished cells takes, so that it needs no torch."""
    known = CodeMemory(request.cache)
    for cell in cells:
        known.of(cell)
    known.save()


def _status(
    plan: ResolvedSuite, request: Request, cell: Cell, known: CodeMemory, now: Here
) -> Status:
    folder = cell_folder(plan, request.runs, cell)
    if any(name in plan.missing for name in cell.datasets):
        return Status("missing data", folder)
    found = cell_state(folder)
    doubt = None
    if found.stored is not None and found.name in FINAL:
        doubt = record_doubt(found.stored.record, cell, known, now)
    name = OUTDATED if doubt and not request.trust_stored else found.name
    return Status(name, folder, doubt, found.problem, found.stored)


def cell_folder(plan: ResolvedSuite, runs: Path, cell: Cell) -> Path:
    """Return the folder that a cell has, or would have."""
    return runs / plan.suite.name / cell.hash(plan.digests)


@dataclass(frozen=True)
class Here:
    """The CPU threads of now, and whether a CPU computes, which is asked only where it matters."""

    threads: int
    on_cpu: Callable[[], bool]


def here(request: Request) -> Here:
    """Return where a request is computed; torch is loaded only where nothing else says it."""
    return Here(
        request.threads, functools.cache(lambda: choose_device(request.device).type == "cpu")
    )


def record_doubt(record: Record, cell: Cell, known: CodeMemory, now: Here) -> str | None:
    """Say how a record was made otherwise than it would be now; None where it was not.

    Args:
        record: of the finished cell.
        cell: its configuration.
        known: the digests of the code of now.
        now: the threads and the device.
    """
    codes = known.of(cell)
    stored = record.code or code_of_commit(record, trains(cell))
    if stored is None:
        return "the code that made this record is not known"
    if stored.digest != codes["cell"]:
        return difference_of_code(stored, cell_code(installed_code(), cell), "this record")
    parts = [("its fit", record.fit.code if record.fit else None, codes["fit"])]
    if record.pool and cell.pool is None:
        parts += [
            (f"its teacher {one['name']}", one.get("code"), codes["teachers"][one["architecture"]])
            for one in record.pool.teachers
        ]
    for what, digest, wanted in parts:
        if digest not in (None, wanted):
            return f"other code made {what}"
    return _other_threads(record, now)


def _other_threads(record: Record, now: Here) -> str | None:
    if record.status != "done" or record.device.type != "cpu":
        return None
    threads = {record.device.threads, record.fit.threads if record.fit else None}
    threads |= {one.get("threads") for one in record.pool.teachers} if record.pool else set()
    others = sorted(one for one in threads if one not in (None, now.threads))
    if not others or not now.on_cpu():
        return None
    return other_threads(others[0], now.threads, "this record")


def cell_code(code: CodeBase, cell: Cell) -> Code:
    """Return the code that makes a cell's record."""
    return code.cell(cell, trains(cell))


def trains(cell: Cell) -> bool:
    """Tell whether a cell has a pool that is trained here."""
    return registry.load("method", cell.method).uses_pool and cell.pool is None


class CodeMemory:
    """The digests of the code that makes cells, kept in the cache while no source changes.

    Args:
        cache: the cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._path = cache / "plans" / "code.json"
        self._new = False

    @functools.cached_property
    def _sources(self) -> str:
        return sources_digest()

    @functools.cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        stored = recall(self._path)
        known: dict[str, dict[str, Any]] = stored.get("cells", {})
        return known if stored.get("sources") == self._sources else {}

    def of(self, cell: Cell) -> dict[str, Any]:
        """Return the digests of what makes a cell: `cell`, `fit`, `teachers` by architecture."""
        plug_ins = [cell.method, cell.learner, cell.calibration, cell.net]
        sets = [sorted(set(cell.architectures)), sorted(cell.datasets)]
        key = content_hash([plug_ins, sets, cell.pool is None])
        if key not in self._known:
            code, method = installed_code(), registry.load("method", cell.method)
            self._known[key] = {
                "cell": cell_code(code, cell).digest,
                "fit": code.fit(cell, method).digest,
                "teachers": {one: code.teacher(one).digest for one in cell.architectures},
            }
            self._new = True
        return self._known[key]

    def save(self) -> None:
        """Keep what was found out."""
        if self._new:
            remember(self._path, {"sources": self._sources, "cells": self._known})
