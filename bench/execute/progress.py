"""How far work is: for the display of this process, and in a file that another one may read.

`<cell>/.progress.json` is written at most once a second while a cell runs, and beside it grow the
points of its curves (`curve_file`); both are deleted when it is finished.
`<suite>/.run-<host>-<pid>.json` names the cells of a run until that has ended. None of them belongs
to a result. Reading them needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.processes import holder, this_process
from bench.results.store import CURVE_POINTS

if TYPE_CHECKING:
    from bench.results.curve_file import CurveWriter, Row

__all__ = [
    "PROGRESS",
    "RUN_FILES",
    "Display",
    "Progress",
    "Standing",
    "announced",
    "duration",
    "holder",
    "read",
    "standing_of",
    "under_way",
]

PROGRESS = ".progress.json"
RUN_FILES = ".run-*.json"
WRITE_EVERY = 1.0
"""Least seconds between two writings of a file."""
SILENT = 3600.0
"""Seconds after which a process on another machine that is not heard of counts as gone."""
CURVE_EVERY = 10.0
"""Least seconds between two additions to the points of curves."""


@dataclass(frozen=True)
class Standing:
    """How far a stage of the work is.

    `rate` is in steps per second, since this process began the stage; None before that is known.
    `validation` is the last validation accuracy, a fraction; None where none was made.
    """

    stage: str
    done: int
    total: int
    rate: float | None = None
    validation: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end of the stage at this rate; None where that is not known."""
        return (self.total - self.done) / self.rate if self.rate else None

    @property
    def text(self) -> str:
        """The same in words: `fit 120/400, 3.1/s, 90 s left, validation 41.2 %`."""
        parts = [f"{self.stage} {self.done}/{self.total}", *self.notes]
        if (left := self.seconds_left) is not None:
            parts.insert(2, f"{duration(left)} left")
        return ", ".join(parts)

    @property
    def notes(self) -> list[str]:
        """Rate and validation in words, as far as they are known."""
        found = []
        if self.rate is not None:
            slow = 0 < self.rate < 0.1
            found.append(f"{60 * self.rate:.2g}/min" if slow else f"{self.rate:.3g}/s")
        if self.validation is not None:
            found.append(f"validation {100 * self.validation:.1f} %")
        return found


def duration(seconds: float) -> str:
    """Return seconds as `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Display(Protocol):
    """Where a run shows how far it is."""

    def start_cell(self, label: str) -> None:
        """Say that a cell is under way; there may be several."""

    def stage(self, label: str, standing: Standing) -> None:
        """Say how far a stage of a cell is."""

    def leave_cell(self, label: str) -> None:
        """Say that a cell is under way no longer, and has not ended."""

    def end_cell(self, label: str, outcome: str) -> None:
        """Say how a cell ended."""

    def say(self, line: str, label: str = "") -> None:
        """Say one thing that the user should know; `label` names the cell that it concerns."""


class Progress:
    """Takes note of steps, and passes on how far the work is.

    Args:
        show: called with each standing.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        show: Callable[[Standing], None] = lambda standing: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show, self._clock = show, clock
        self._first: tuple[str, int, float] = ("", 0, 0.0)
        self._validation: float | None = None
        self._file: Path | None = None
        self._points = Path()
        self._facts: dict[str, Any] = {}
        self._written = -WRITE_EVERY
        self._curve: CurveWriter | None = None
        self._added = -CURVE_EVERY

    def begin(self, folder: Path, label: str, started: float | None = None) -> None:
        """Begin a cell, whose files are written to its folder.

        Args:
            folder: of the cell.
            label: its name in words.
            started: when, in seconds since 1970; now without.
        """
        self._file, self._written = folder / PROGRESS, -WRITE_EVERY
        self._points, self._curve, self._added = folder / CURVE_POINTS, None, -CURVE_EVERY
        _delete(self._points)
        self._facts = {"label": label, "started": started or time.time(), **this_process()}
        self._facts["system"] = None
        self._first, self._validation = ("", 0, 0.0), None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of a step of a stage."""
        now = self._clock()
        name, first, since = self._first
        if stage != name or done < first:
            self._first = name, first, since = stage, done, now
        rate = (done - first) / (now - since) if done > first and now > since else None
        standing = Standing(stage, done, total, rate, self._validation)
        self._show(standing)
        if self._file is not None and now - self._written >= WRITE_EVERY:
            self._written = now
            _write(self._file, {**self._facts, **asdict(standing), "updated": time.time()})

    def validated(self, accuracy: float) -> None:
        """Take note of a validation accuracy, a fraction."""
        self._validation = accuracy

    def sampled(self, seconds: float, number: int, sample: Mapping[str, float]) -> None:
        """Take note of a sample of the system, for the file.

        Args:
            seconds: since the cell began.
            number: how many samples came before.
            sample: values by name.
        """
        self._facts["system"] = {"seconds": seconds, "number": number, "values": dict(sample)}

    def curve_is_due(self) -> bool:
        """Tell whether it is time to add points of curves to the file of a cell."""
        return self._file is not None and self._clock() - self._added >= CURVE_EVERY

    def curve(self, rows: Iterable[Row], total: int) -> None:
        """Add points (step, name, value) of a fit of so many steps to the file of the cell."""
        if self._file is None:
            return
        self._added = self._clock()
        if new := list(rows):
            from bench.results.curve_file import CurveWriter

            self._curve = self._curve or CurveWriter(self._points.parent)
            self._curve.add(new, total)

    def end(self) -> None:
        """End a cell: its files are deleted."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            _new(self._file).unlink(missing_ok=True)
            _delete(self._points)
            self._file = self._curve = None


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def under_way(runs: Path, suite: str = "*") -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folder of each cell whose process is not gone, and what its file says.

    Args:
        runs: the folder of runs.
        suite: one of its suites; all without.
    """
    for path in sorted(runs.glob(f"{suite}/*/{PROGRESS}")):
        if (facts := read(path)) is not None and not _is_left(facts):
            yield path.parent, facts


def _is_left(facts: Mapping[str, Any]) -> bool:
    """Tell whether a cell's process is gone, or is on another machine and silent for long."""
    found = holder(facts)
    return found == "gone" or (found == "elsewhere" and time.time() - facts["updated"] > SILENT)


@contextlib.contextmanager
def announced(folder: Path, command: str, cells: Mapping[str, str]) -> Iterator[None]:
    """Name the cells of a run in a file of its own until the block has ended as it should.

    Args:
        folder: of the suite.
        command: that the user gave.
        cells: labels by hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{RUN_FILES}*"):
        if (found := read(path)) is None or holder(found) == "gone":
            path.unlink(missing_ok=True)
    facts = this_process()
    path = folder / f".run-{facts['host']}-{facts['pid']}.json"
    _write(path, {"command": command, "started": time.time(), "cells": dict(cells), **facts})
    yield
    path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any] | None:
    """Return what a file of this module says; None where it is gone or unreadable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "pid" in found else None


def standing_of(facts: Mapping[str, Any]) -> Standing:
    """Return how far a cell is by what its file says."""
    return Standing(**{one.name: facts[one.name] for one in fields(Standing)})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in one piece; a full disk stops no work."""
    temporary = _new(path)
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)


def _new(path: Path) -> Path:
    """Return the name under which a file is written; only who holds the cell writes it."""
    return path.with_name(f"{path.name}.new")
