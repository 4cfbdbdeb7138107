"""Selection of the records of a report: each cell once, filtered by `key=value`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.results.find import Reading, find_records
from bench.results.record import Record
from bench.results.store import TASKS, StoredRecord

KEYS = (
    "suite",
    "scenario",
    "protocol",
    "variant",
    "dataset",
    "net",
    "method",
    "preset",
    "knowledge",
    "inference",
    "learner",
    "calibration",
    "n_way",
    "k_shot",
    "seed",
    "status",
)


def load_records(
    root: Path,
    only: Sequence[str] = (),
    reading: Reading | None = None,
    beside: Sequence[Path] = (),
) -> list[StoredRecord]:
    """Read the records below a folder, one per cell, and keep those that match.

    Where several suites hold one cell, a finished one counts, then the latest.

    Args:
        root: a folder of runs, of one suite, or of stored results.
        only: `key=value`; several values of one key are alternatives.
        reading: collects what is left out; None warns of it.
        beside: further folders, of which only cells count that the first does not hold.

    Raises:
        BenchError: no folder, no readable record, or a condition that nothing meets.
    """
    found = [each_cell_once(find_records(one, reading)) for one in (*reversed(beside), root)]
    cells = {one.record.cell_hash: one for stored in found for one in stored}
    if not cells:
        raise BenchError(f"no finished record below '{root}'; run a suite first: bench run micro")
    return narrowed([cells[name] for name in sorted(cells)], only)


def each_cell_once(stored: Iterable[StoredRecord]) -> list[StoredRecord]:
    """Return one record for each cell, by hash: a finished one counts, then the latest."""
    cells = {one.record.cell_hash: one for one in sorted(stored, key=_precedence)}
    return [cells[name] for name in sorted(cells)]


def _precedence(stored: StoredRecord) -> tuple[bool, bool, str]:
    record = stored.record
    return record.status == "done", (stored.folder / TASKS).exists(), record.ended


def narrowed(stored: list[StoredRecord], only: Sequence[str]) -> list[StoredRecord]:
    """Keep the records that meet every `key=value`; see `load_records`."""
    wanted: dict[str, set[str]] = {}
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise BenchError(f"--only '{condition}' is not KEY=VALUE, as in --only method=purer")
        if key not in KEYS:
            raise unknown_name("--only key", key, KEYS)
        present = set().union(*(_values(one.record, key) for one in stored))
        if value not in present:
            raise unknown_name(f"{key} in these records", value, present)
        wanted.setdefault(key, set()).add(value)
    kept = [s for s in stored if all(_values(s.record, k) & v for k, v in wanted.items())]
    if not kept:
        raise BenchError(f"no record matches {' '.join(only)} together; drop a condition")
    return kept


def _values(record: Record, key: str) -> set[str]:
    if key == "dataset":
        return set(record.tested)
    if key == "protocol":
        return {record.protocol_label, record.protocol["name"]}
    return {str(getattr(record, key))}
