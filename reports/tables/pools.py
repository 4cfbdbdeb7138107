"""The tables of pools and of their teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.results.record import PoolSummary, Record
from reports.rows.groups import Group
from reports.tables.caption import CONSTANTS_ABOVE
from reports.tables.table import Column, Entry, Section, Table, label

COLUMNS = [
    Column("data set", numeric=False),
    Column("seed", "seed"),
    Column("teachers", "teachers"),
    Column("architectures", "architectures", numeric=False),
    Column("mean held-out %", "mean"),
    Column("range %", "range"),
    Column("pool", "pool", numeric=False),
]

TEACHER_COLUMNS = [
    Column("teacher", numeric=False),
    Column("architecture", "architecture", numeric=False),
    Column("px", "px"),
    Column("held-out %", "held-out"),
    Column("classes", "classes", numeric=False, wraps=True),
]

MOST_CLASSES = 20
"""Class names of a teacher that are written out; the record has all."""


def pools_table(group: Group) -> Table | None:
    """Return the pools of a group, or None where no cell used one."""
    pools = _members(group)
    if not pools:
        return None
    lines = sorted((_pool_line(*one) for one in pools), key=_texts)
    return Table(
        kind="pools",
        title=f"Teacher pools: {group.name}",
        columns=COLUMNS,
        sections=[Section("", lines)],
        caption=f"Held-out accuracy of teachers on their own classes. {CONSTANTS_ABOVE}",
    )


def teachers_table(group: Group) -> Table | None:
    """Return every teacher of a group's pools, or None where no cell used one."""
    pools = _members(group)
    if not pools:
        return None
    sections = sorted(
        (
            Section(_heading(pool, records), [_teacher_line(one) for one in pool.teachers])
            for pool, records in pools
        ),
        key=lambda section: section.heading,
    )
    return Table(
        kind="teachers",
        title=f"Teachers: {group.name}",
        columns=TEACHER_COLUMNS,
        sections=sections,
        caption=(
            "Accuracy on held-out images of the teacher's own classes; px: the side of its images; "
            f"of more than {MOST_CLASSES} classes only the first are listed."
        ),
    )


def _members(group: Group) -> list[tuple[PoolSummary, list[Record]]]:
    """Return each pool with its records."""
    members: dict[str, tuple[PoolSummary, list[Record]]] = {}
    for one in group.stored:
        if pool := one.record.pool:
            members.setdefault(pool.sha256, (pool, []))[1].append(one.record)
    return list(members.values())


def _seeds(records: Sequence[Record]) -> str:
    return ", ".join(str(seed) for seed in sorted({record.seed for record in records}))


def _pool_line(pool: PoolSummary, records: Sequence[Record]) -> list[Entry]:
    accuracies = [100 * teacher["accuracy"] for teacher in pool.teachers]
    span = f"{min(accuracies):.1f} to {max(accuracies):.1f}" if accuracies else "–"
    texts = (
        "+".join(records[0].datasets),
        _seeds(records),
        str(pool.n),
        ", ".join(f"{count} {name}" for name, count in sorted(pool.architectures.items())),
        f"{100 * pool.mean_accuracy:.1f}",
        span,
        pool.sha256[:8],
    )
    return [label(text) for text in texts]


def _heading(pool: PoolSummary, records: Sequence[Record]) -> str:
    data = "+".join(records[0].datasets)
    return f"{data}, seed {_seeds(records)}, pool {pool.sha256[:8]}"


def _teacher_line(teacher: dict[str, Any]) -> list[Entry]:
    classes = list(teacher["classes"])
    more = len(classes) - MOST_CLASSES
    shown = ", ".join(classes[:MOST_CLASSES]) + (f" and {more} more" if more > 0 else "")
    texts = (
        teacher["name"],
        teacher["architecture"],
        str(teacher.get("image_size", "–")),  # older records do not say it
        f"{100 * teacher['accuracy']:.1f}",
        shown,
    )
    return [label(text) for text in texts]


def _texts(line: Sequence[Entry]) -> list[str]:
    return [entry.text for entry in line]
