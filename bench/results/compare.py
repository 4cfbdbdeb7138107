"""Comparison of two sets of results: configuration, accuracy, speed and environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.results.circumstances import configuration, environment, speed
from bench.results.find import Reading, find_records, holds_cells
from bench.results.memo import Memo
from bench.results.paired import ALPHA, compare_all
from bench.results.places import Side, cell_name, matching_fields, places, shown
from bench.results.select import load_records
from bench.results.store import StoredRecord
from bench.stats import (
    Equivalence,
    Interval,
    PairedDifference,
    equivalence,
    improvement,
)

if TYPE_CHECKING:
    import pandas

MARGIN = 0.01
"""One point: the largest difference that does not matter, unless the user says otherwise."""


@dataclass(frozen=True)
class Change:
    """Two matching cells and their difference b - a, or the reason why there is none.

    `bitwise` says that all tasks have equal accuracies; `p_holm` is adjusted over all changes.
    """

    name: str
    a: StoredRecord
    b: StoredRecord
    difference: Interval | None = None
    p_value: float | None = None
    p_holm: float | None = None
    ahead: float | None = None
    within: Equivalence | None = None
    bitwise: bool = False
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """One of `same`, `higher`, `lower`, `equivalent`, `undecided`, `not comparable`."""
        difference, p, within = self.difference, self.p_holm, self.within
        if difference is None or p is None or within is None:
            alike = self.a.record.status == self.b.record.status != "done"
            reasons = self.a.record.reason, self.b.record.reason
            return "same" if alike and reasons[0] == reasons[1] else "not comparable"
        if self.bitwise:
            return "same"
        if p < ALPHA:
            return "higher" if difference.mean > 0 else "lower"
        return "equivalent" if within.p_value < ALPHA else "undecided"


@dataclass(frozen=True)
class Comparison:
    """The matching cells of two sides, and their differences."""

    a: Side
    b: Side
    changes: list[Change]
    only_a: list[str]
    only_b: list[str]
    configuration: dict[str, list[str]]
    environment: dict[str, tuple[str, str]]
    speed: dict[str, tuple[float, int]]

    @property
    def lost(self) -> int:
        """The cells of which a has a result and b has none: failed, skipped, or missing."""
        gone = [one for one in self.changes if one.a.record.status == "done" != one.b.record.status]
        return len(gone) + len(self.only_a)

    def frame(self) -> pandas.DataFrame:
        """Return one row per pair of cells, columns as in `bench compare --json`; fractions."""
        import pandas

        return pandas.DataFrame([_row(one) for one in self.changes])


def resolve(
    name_a: str, name_b: str, runs: Path, reading: Reading | None = None
) -> tuple[Side, Side, bool]:
    """Resolve two arguments: folders, methods of `runs`, or commits of `runs`.

    Returns:
        The sides, and whether they are methods (then cells are matched without regard to who).

    Raises:
        BenchError: a word that is none of these, or two of different kinds.
    """
    folders = [Path(name) for name in (name_a, name_b)]
    held = [holds_cells(folder) for folder in folders]
    if all(held):
        first, second = (load_records(folder, reading=reading) for folder in folders)
        return Side(name_a, first), Side(name_b, second), False
    stored = find_records(runs, reading) if runs.is_dir() else []
    a, b = _named(name_a, stored), _named(name_b, stored)
    if not any(held) and a and b and a[0] == b[0]:
        return Side(name_a, a[1]), Side(name_b, b[1]), a[0] == "method"
    known = sorted({shown(one.record) for one in stored})
    raise BenchError(
        f"'{name_a}' and '{name_b}' are not two folders, two methods or two commits of '{runs}'; "
        f"methods there: {', '.join(known) or 'none'}"
    )


def _named(name: str, stored: Sequence[StoredRecord]) -> tuple[str, list[StoredRecord]] | None:
    methods = [s for s in stored if name in (s.record.method, shown(s.record))]
    if methods:
        exact = [s for s in methods if shown(s.record) == name]
        return "method", exact or methods
    commits = [
        s for s in stored
        if len(name) >= 4 and (s.record.environment.git_commit or "").startswith(name)
    ]  # fmt: skip
    return ("commit", commits) if commits else None


def compare_sides(a: Side, b: Side, methods: bool, margin: float = MARGIN) -> Comparison:
    """Match the cells of two sides and compare each pair on its tasks.

    Args:
        a: the first side.
        b: the second; differences are b minus a.
        methods: match cells without regard to method, preset, learner and calibration.
        margin: δ of equivalence, a fraction.

    Raises:
        BenchError: no cell of one side stands for one of the other, or a side has several for
            one place.
    """
    fields = matching_fields(a, b, methods)
    first, second = places(a, fields), places(b, fields)
    common = [key for key in first if key in second]
    if not common:
        raise BenchError(
            f"no cell of '{a.name}' has one of '{b.name}' beside it (same data, task shape, seed"
            f"{'' if methods else ' and method'}); compare runs of one suite"
        )
    changes = _changes([(first[key], second[key]) for key in common], fields, margin)
    pairs = [(one.name, one.a.record, one.b.record) for one in changes]
    return Comparison(
        a=a,
        b=b,
        changes=changes,
        only_a=[cell_name(first[key].record, fields) for key in first if key not in second],
        only_b=[cell_name(second[key].record, fields) for key in second if key not in first],
        configuration=configuration(pairs, methods),
        environment=environment(pairs),
        speed=speed(pairs),
    )


def _changes(
    pairs: Sequence[tuple[StoredRecord, StoredRecord]], fields: Sequence[str], margin: float
) -> list[Change]:
    """Return what changed from a to b in each pair, p-values adjusted by Holm over all."""
    reasons = [_incomparable(a, b) for a, b in pairs]
    tasks = [
        None if reason else (b.accuracies(), a.accuracies())
        for (a, b), reason in zip(pairs, reasons, strict=True)
    ]
    found = compare_all(tasks, Memo())
    changes = [
        Change(cell_name(a.record, fields), a, b, reason=reason)
        for (a, b), reason in zip(pairs, reasons, strict=True)
    ]
    return [
        _with_numbers(change, values, *numbers, margin) if values and numbers else change
        for change, values, numbers in zip(changes, tasks, found, strict=True)
    ]


def _incomparable(a: StoredRecord, b: StoredRecord) -> str | None:
    for one, word in ((a, "first"), (b, "second")):
        if one.record.status != "done":
            return f"the {word} is {one.record.status}: {one.record.reason}"
    if a.record.task_list_sha256 != b.record.task_list_sha256:
        return "not the same test tasks"
    return "a single test task" if a.record.scored.n < 2 else None


def _with_numbers(
    change: Change,
    tasks: tuple[np.ndarray, np.ndarray],
    found: PairedDifference,
    p_holm: float,
    margin: float,
) -> Change:
    second, first = tasks
    return replace(
        change,
        difference=Interval(found.mean, found.low, found.high),
        p_value=found.p_value,
        p_holm=p_holm,
        ahead=improvement(second, first).mean,
        within=equivalence(second, first, margin),
        bitwise=bool(np.array_equal(first, second)),
    )


def as_rows(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values; accuracies are fractions."""
    return {
        "a": found.a.name,
        "b": found.b.name,
        "changes": [_row(one) for one in found.changes],
        "only_a": found.only_a,
        "only_b": found.only_b,
        "configuration": found.configuration,
        "environment": {key: list(pair) for key, pair in found.environment.items()},
        "speed": {name: {"ratio": ratio, "cells": n} for name, (ratio, n) in found.speed.items()},
    }


def _row(one: Change) -> dict[str, Any]:
    d = one.difference
    return {
        "name": one.name,
        "verdict": one.verdict,
        "cell_a": one.a.record.cell_hash,
        "cell_b": one.b.record.cell_hash,
        "mean_a": one.a.record.accuracy.mean if one.a.record.accuracy else None,
        "mean_b": one.b.record.accuracy.mean if one.b.record.accuracy else None,
        "difference": d.mean if d else None,
        "low": d.low if d else None,
        "high": d.high if d else None,
        "p_value": one.p_value,
        "p_holm": one.p_holm,
        "ahead": one.ahead,
        "p_equivalent": one.within.p_value if one.within else None,
        "bitwise": one.bitwise,
        "reason": one.reason,
    }
