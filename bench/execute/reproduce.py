"""Repetition of a stored cell from its record alone, and the comparison of both results."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.base import ImageData, Progress
from bench.data.sources import open_data
from bench.errors import BenchError
from bench.execute.plan import ResolvedSuite
from bench.execute.progress import Display
from bench.results.codebase import changes_named
from bench.results.find import Reading, find_records
from bench.results.record import Record
from bench.results.store import RECORD, StoredRecord, open_record
from bench.stats import Interval
from bench.suites.cell import Cell, described_cell
from bench.suites.suite import MethodEntry, Suite

ROOMS = {"nothing": (), "teachers": ("teachers",), "fit": ("teachers", "fits")}
"""What of a cache may be used again beside decoded data, by the name that `--keep` gives it."""


@dataclass(frozen=True)
class Outcome:
    """The comparison of a repetition with its record.

    `verdict` is `bitwise` (equal on every task), `within the interval` (the 95 % t interval of
    the paired difference contains 0, or no task differs on average) or `different`.
    """

    verdict: str
    stored: StoredRecord
    again: StoredRecord
    interval: Interval | None
    """of again minus stored; None for a single task"""
    tasks_equal: int
    surroundings: dict[str, tuple[str, str]]
    """what differs between the two environments, by name"""


def find_cell(name: str, runs: Path, reading: Reading | None = None) -> StoredRecord:
    """Return the stored record of a cell: a folder that holds it, or the beginning of its hash.

    Raises:
        BenchError: no cell, or several different ones, have that name.
    """
    if (Path(name) / RECORD).is_file():
        return open_record(Path(name))
    if not runs.is_dir():
        raise BenchError(
            f"'{name}' is no folder with a record, and '{runs}' is no folder of runs; name the "
            "cell's folder, or --runs DIR"
        )
    found = {
        stored.record.cell_hash: stored
        for stored in find_records(runs, reading)
        if stored.record.cell_hash.startswith(name)
    }
    if len(found) != 1:
        what = "no cell" if not found else f"{len(found)} cells ({', '.join(sorted(found)[:4])})"
        raise BenchError(
            f"{what} below '{runs}' begins with '{name}'; give more of the hash, or the cell's "
            "folder"
        )
    return next(iter(found.values()))


def cell_of(record: Record) -> Cell:
    """Return the configuration that a record holds.

    Raises:
        BenchError: the cell has no result, or its configuration no longer has its hash.
    """
    if record.status != "done":
        raise BenchError(
            f"cell {record.cell_hash} is {record.status} ({record.reason}); only a finished cell "
            "can be compared with its repetition"
        )
    try:
        cell = described_cell(record.model_dump(mode="json"))
    except ValueError as error:
        first = " ".join(str(error).split())[:160]
        raise BenchError(
            f"the configuration of cell {record.cell_hash} is not one of this version ({first}); "
            f"check out commit {record.environment.git_commit}"
        ) from None
    if cell.hash(record.dataset_digests) != record.cell_hash:
        raise BenchError(
            f"the configuration of cell {record.cell_hash} hashes to "
            f"{cell.hash(record.dataset_digests)} in this version; check out commit "
            f"{record.environment.git_commit}"
        )
    return cell


def open_datasets(
    record: Record,
    cache: Path,
    data_dir: Path | None,
    dataset_dirs: dict[str, Path],
    progress: Progress | None,
) -> dict[str, ImageData]:
    """Open the record's data sets and check that they are the same images.

    Raises:
        BenchError: a data set is missing or has another digest.
    """
    from bench.data.sources import dataset_source

    data = {}
    for name in record.datasets:
        source = dataset_source(name, dataset_dirs)
        data[name] = open_data(source, cache, data_dir, dataset_dirs.get(name), progress)
        wanted = record.dataset_digests.get(name)
        if data[name].digest != wanted:
            raise BenchError(
                f"{name} has digest {data[name].digest[:12]}, the record's is "
                f"{str(wanted)[:12]}; point --data at the images that it was measured on"
            )
    return data


@contextlib.contextmanager
def fresh_cache(cache: Path, keep: str) -> Iterator[Path]:
    """Give an empty cache that shares imported pools, and what `keep` names, with another one."""
    with tempfile.TemporaryDirectory(prefix="purer-bench-") as name:
        imported = ("pools",) if (cache / "pools").is_dir() else ()
        for room in (*imported, *ROOMS[keep]):
            (cache / room).mkdir(parents=True, exist_ok=True)
            (Path(name) / room).symlink_to((cache / room).resolve(), target_is_directory=True)
        yield Path(name)


def run_again(
    stored: StoredRecord,
    data: dict[str, ImageData],
    cache: Path,
    runs: Path,
    device: str | None,
    threads: int | None,
    display: Display,
) -> StoredRecord:
    """Run the record's cell below `runs` and return the new record.

    Args:
        stored: what is repeated.
        data: its data sets by name.
        cache: where teachers and fits are looked for and kept.
        runs: a folder that does not hold the cell.
        device: where to compute; None takes the record's kind.
        threads: CPU threads; None takes the record's number.
        display: where progress is shown.

    Raises:
        BenchError: the folder holds the cell, or the repetition did not finish.
    """
    from bench.execute.plan import Request
    from bench.execute.run import run_inline, run_plan

    record, cell = stored.record, cell_of(stored.record)
    if (runs / record.suite / record.cell_hash).exists():
        raise BenchError(
            f"'{runs}' holds cell {record.cell_hash} already; name a folder for the repetition "
            "that is not there yet"
        )
    suite = Suite.model_validate(
        {
            "name": record.suite,
            "title": "a repetition",
            "scenario": cell.scenario,
            "datasets": list(cell.datasets),
            "architectures": list(cell.architectures),
            "methods": [MethodEntry(method=cell.method)],
        }
    )
    request = Request(
        runs=runs,
        cache=cache,
        data_dir=None,
        dataset_dirs={},
        device=device or record.device.type,
        threads=threads or record.device.threads,
        command=f"bench reproduce {record.cell_hash}",
    )
    plan = ResolvedSuite(suite, [cell], data, {}, {})
    (again,) = run_plan(plan, request, run_inline, display, lambda _: None)
    if again.record.status != "done":
        raise BenchError(
            f"the repetition of {record.cell_hash} is {again.record.status} "
            f"({again.record.reason}); name -o DIR to keep its log"
        )
    return again


def judge(stored: StoredRecord, again: StoredRecord) -> Outcome:
    """Compare a repetition with its record, task by task.

    Raises:
        BenchError: the test tasks are not the same.
    """
    import numpy as np

    from bench.stats import mean_interval

    if stored.record.task_list_sha256 != again.record.task_list_sha256:
        raise BenchError(
            f"the repetition met other test tasks than cell {stored.record.cell_hash}: the code "
            "that draws them changed; check out commit "
            f"{stored.record.environment.git_commit}"
        )
    first, second = stored.accuracies(), again.accuracies()
    equal = int((first == second).sum())
    interval = mean_interval(second - first) if len(first) > 1 else None
    if np.array_equal(first, second):
        verdict = "bitwise"
    else:
        inside = interval is not None and interval.low <= 0 <= interval.high
        verdict = "within the interval" if inside else "different"
    surroundings = _differing(stored.record, again.record)
    return Outcome(verdict, stored, again, interval, equal, surroundings)


def _differing(a: Record, b: Record) -> dict[str, tuple[str, str]]:
    first, second = (_surroundings(record) for record in (a, b))
    return {
        key: (first.get(key, "absent"), second.get(key, "absent"))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    }


def _surroundings(record: Record) -> dict[str, str]:
    e, device = record.environment, record.device
    return {
        "commit": f"{(e.git_commit or 'unknown')[:10]}{' (dirty)' if e.git_dirty else ''}",
        "code changed since": changes_named(record),
        "device": f"{device.type} {device.name}",
        "threads": str(device.threads),
        "python": e.python,
        "platform": e.platform,
        "pool": record.pool.sha256[:12] if record.pool else "none",
        **e.packages,
    }


def as_row(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain values; accuracies are fractions."""
    a, b, interval = outcome.stored.record, outcome.again.record, outcome.interval
    return {
        "cell_hash": a.cell_hash,
        "verdict": outcome.verdict,
        "tasks": a.scored.n,
        "tasks_equal": outcome.tasks_equal,
        "mean": a.scored.mean,
        "mean_again": b.scored.mean,
        "difference": interval.mean if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "surroundings": {key: list(pair) for key, pair in outcome.surroundings.items()},
    }


def sentences(outcome: Outcome) -> list[str]:
    """Return lines that compare a repetition with its record."""
    a, b = outcome.stored.record, outcome.again.record
    n = a.scored.n
    lines = [
        f"{cell_of(a).label}: {100 * a.scored.mean:.2f} % stored, "
        f"{100 * b.scored.mean:.2f} % again; {outcome.tasks_equal} of {n} tasks equal"
    ]
    if outcome.verdict == "bitwise":
        lines.append("agrees bitwise: every test task has the same accuracy")
    elif outcome.interval is not None:
        mean, low, high = outcome.interval
        word = "agrees within the interval" if outcome.verdict != "different" else "differs"
        lines.append(
            f"{word}: again minus stored {100 * mean:+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}] over the same {n} tasks"
        )
    else:
        lines.append("differs on its only test task")
    for name, (first, second) in outcome.surroundings.items():
        lines.append(f"  {name}: {first} → {second}")
    return lines
