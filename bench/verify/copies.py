"""Checks across records: one cell twice, one cell's numbers under another's name."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.errors import BenchError
from bench.results.files import canonical_json, read_parquet
from bench.results.record import Record
from bench.results.store import TASKS
from bench.verify.findings import Checked, doubt, refused

Found = tuple[Checked, Record]
FEW = 50
"""Equal accuracies on fewer tasks are no wonder."""


def copies(records: Sequence[Found]) -> None:
    """Add to the findings of cells what the others say about them."""
    for same in _alike(records, lambda checked, record: record.cell_hash):
        _twice(same)
    for same in _alike(records, lambda checked, record: record.fit.sha256 if record.fit else None):
        _one_fit(same)
    for same in _alike(records, _accuracies):
        _equal_accuracies(same)


def _alike(
    records: Sequence[Found], key: Callable[[Checked, Record], str | None]
) -> list[list[Found]]:
    """Return the groups of two or more records with the same key."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for checked, record in records:
        if (value := key(checked, record)) is not None:
            groups[value].append((checked, record))
    return [same for same in groups.values() if len(same) > 1]


def _twice(same: Sequence[Found]) -> None:
    """A cell may stand in several suites, once in each."""
    seen: dict[str, Checked] = {}
    for checked, record in same:
        if record.suite in seen:
            text = f"cell {record.cell_hash} stands twice in suite '{record.suite}'"
            checked.findings.append(refused("duplicate", f"{text}: {seen[record.suite].folder}"))
        seen.setdefault(record.suite, checked)


def _one_fit(same: Sequence[Found]) -> None:
    """Cells share a fit only if the method, its settings and the repetition are the same.

    A setting that a later version added stands in newer records only, and is not compared.
    """
    known = set.intersection(*(set(record.method_config) for _, record in same))
    makers = {
        canonical_json([r.method, r.preset, {k: r.method_config[k] for k in known}, r.seed]): (c, r)
        for c, r in same
    }
    if len(makers) > 1:
        names = sorted({f"{r.method} ({r.preset}) seed {r.seed}" for _, r in makers.values()})
        for checked, record in same:
            text = f"fit {record.fit.sha256[:12] if record.fit else ''} is also claimed by others"
            checked.findings.append(refused("duplicate", f"{text}: {', '.join(names[:3])}"))


def _accuracies(checked: Checked, record: Record) -> str | None:
    if record.accuracy is None or record.accuracy.n < FEW or record.accuracy.std == 0:
        return None
    if any((one.level, one.check) == ("refused", "tasks") for one in checked.findings):
        return None
    with contextlib.suppress(BenchError):
        values = read_parquet(checked.folder / TASKS, ("accuracy",))["accuracy"]
        return hashlib.sha256(values.tobytes()).hexdigest()
    return None


def _equal_accuracies(same: Sequence[Found]) -> None:
    """Equal accuracies alone may be honest, as without a step of training; equal times are not."""
    for number, (checked, record) in enumerate(same):
        for other, earlier in same[:number]:
            if record.cell_hash == earlier.cell_hash:
                continue
            if (record.timing.test_s, record.started) == (earlier.timing.test_s, earlier.started):
                text = f"its accuracies and times are those of cell {earlier.cell_hash}"
                checked.findings.append(refused("duplicate", f"{text}: {other.folder}"))
            elif record.method != earlier.method:
                text = f"every accuracy equals that of {earlier.method} in cell {earlier.cell_hash}"
                checked.findings.append(doubt("duplicate", text))
            break
