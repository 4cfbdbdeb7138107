"""The comparison of records with stored ones: the same cell, and the best of the same setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results.files import canonical_json
from bench.results.find import Reading, find_records
from bench.results.record import Record
from bench.results.store import StoredRecord
from bench.verify.copies import FEW
from bench.verify.findings import Checked, Finding, doubt, note

Setting = tuple[object, ...]
"""What records must share to be compared."""
COSTS = ("params", "macs_per_query_image", "macs_adapt_per_task")
"""Costs of prediction, which follow from a cell's configuration."""


def baseline(records: Sequence[tuple[Checked, Record]], root: Path, against: Path) -> None:
    """Add to the findings of cells how they compare with stored ones.

    Args:
        records: that are checked.
        root: the folder that they are below.
        against: the folder of stored records; nothing is compared with itself.
    """
    if against.resolve() == root.resolve():
        return
    stored = [one for one in find_records(against, Reading()) if one.record.status == "done"]
    by_hash = {one.record.cell_hash: one for one in stored}
    by_setting: dict[Setting, list[StoredRecord]] = defaultdict(list)
    by_repetition: dict[Setting, list[StoredRecord]] = defaultdict(list)
    for one in stored:
        by_setting[_setting(one.record)].append(one)
        by_repetition[_repetition(one.record)].append(one)
    for checked, record in records:
        if record.status != "done" or checked.is_refused:
            continue
        mine = StoredRecord(record, checked.folder)
        checked.findings += _costs(record, by_repetition[_repetition(record)][:1])
        if (same := by_hash.get(record.cell_hash)) is not None:
            checked.findings.append(_same_cell(mine, same))
        else:
            others = by_setting[_setting(record)]
            checked.findings += [*_beside(mine, others), *_taken_from(mine, others)]


def _setting(record: Record) -> Setting:
    shape = (record.n_way, record.k_shot, record.n_query, record.n_test_tasks)
    names = (record.scenario, tuple(record.tested), tuple(record.architectures), record.net)
    return (*names, *shape, record.task_list_sha256, record.protocol_label, record.seed)


def _repetition(record: Record) -> Setting:
    """Return what cells share that differ in nothing but the seed."""
    parts = record.preset, record.method_config, record.calibration, record.calibration_config
    return (*_setting(record)[:-1], record.method, record.learner, canonical_json(parts))


def _costs(record: Record, stored: Sequence[StoredRecord]) -> Iterator[Finding]:
    for one in stored:
        for name in COSTS:
            a, b = getattr(record.cost, name), getattr(one.record.cost, name)
            if a != b:
                yield doubt("cost", f"{name} is {a}; {b} in the stored cell {one.record.cell_hash}")


def _taken_from(mine: StoredRecord, others: Sequence[StoredRecord]) -> Iterator[Finding]:
    """Yield the stored cell of another method that has the same accuracy on each of many tasks."""
    for one in others:
        same = np.array_equal(mine.accuracies(), one.accuracies())
        if same and one.record.method != mine.record.method and len(mine.accuracies()) >= FEW:
            text = f"every accuracy equals that of {one.record.method} in the stored cell"
            yield doubt("duplicate", f"{text} {one.record.cell_hash}")
            return


def _same_cell(mine: StoredRecord, stored: StoredRecord) -> Finding:
    a, b = mine.accuracies(), stored.accuracies()
    if len(a) != len(b) or mine.record.task_list_sha256 != stored.record.task_list_sha256:
        return doubt("baseline", "the stored cell of this hash met other tasks")
    if np.array_equal(a, b):
        return note("baseline", "equal to the stored cell on every task")
    text, apart = _difference(a, b, "the stored cell of this hash")
    return (doubt if apart else note)("baseline", text)


def _beside(mine: StoredRecord, others: Sequence[StoredRecord]) -> list[Finding]:
    """Compare with the best data-free cell, and with the best that has real data."""
    found = []
    for with_data in (False, True):
        some = [one for one in others if (one.record.knowledge == "real_data") == with_data]
        if not some or len(mine.accuracies()) != some[0].record.scored.n:
            continue
        best = max(some, key=lambda one: one.record.scored.mean)
        name = f"{best.record.method} ({best.record.learner}), the best stored "
        name += "with real data" if with_data else "without data"
        try:
            text, apart = _difference(mine.accuracies(), best.accuracies(), name)
        except BenchError:
            continue
        above = apart and mine.record.scored.mean > best.record.scored.mean
        say = doubt if with_data and above and mine.record.knowledge != "real_data" else note
        found.append(say("baseline", text))
    return found


def _difference(a: np.ndarray, b: np.ndarray, other: str) -> tuple[str, bool]:
    """Say how accuracies differ on the same tasks, and whether the interval excludes 0."""
    from bench.stats import mean_interval

    if len(a) < 2:
        return f"{100 * float((a - b).mean()):+.2f} points against {other}", False
    mean, low, high = mean_interval(a - b)
    text = f"{100 * mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}] against {other}"
    return text, not low <= 0 <= high
