"""The accuracy table: methods × settings, with the best and the ties with it marked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench.errors import counted
from bench.results.community import OURS
from bench.results.record import Record
from bench.stats import mean_interval
from reports.rows.groups import Group, section_heading
from reports.rows.results import Result, Row, Setting, best_first, paired
from reports.tables.caption import (
    budget_sentence,
    origin_sentence,
    protocol_sentence,
    seeds_sentence,
)
from reports.tables.chance import chance_note, start_note
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

NAMES = [Column("method", numeric=False), Column("learner", numeric=False)]
ORIGIN = Column("results", numeric=False)
"""Whose: ours, or of the community; a column where there are some of the community."""
OVER_SEEDS = "over seeds"
"""Header of the columns of the seeds' spread."""
BEST = (
    "the best data-free row of its column, once among the inductive rows and once among the "
    "transductive ones"
)
OTHER_POOL = (
    "with another pool of teachers than the best of its kind, trained alike; what the pools differ "
    "by is part of a difference from it"
)


def accuracy_table(group: Group) -> Table:
    """Return the table of a group: percent, mean ± 1.96·std/√n over the test tasks."""
    notes = Footnotes()
    seeds = len({one.record.seed for one in group.stored}) > 1
    verdicts = {setting: verdict(group, setting) for setting in group.settings}
    others = set().union(*(with_other_pools(group, setting) for setting in group.settings))
    sections = []
    for heading, rows in groupby(group.rows, key=section_heading):
        lines = [_line(group, row, verdicts, row in others, seeds, notes) for row in rows]
        sections.append(Section(heading, lines))
    return Table(
        kind="accuracy",
        title=f"Accuracy: {group.name}",
        columns=_columns(group, seeds),
        sections=sections,
        caption=_caption(group),
        strong_means=BEST,
        notes=notes.texts,
    )


def name_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that name a row of some."""
    return [*NAMES, *([ORIGIN] if any(row.origin != OURS for row in rows) else [])]


def row_names(row: Row, rows: Sequence[Row]) -> list[Entry]:
    """Return the entries that name a row of some."""
    names = (row.name, row.head, row.origin)
    return [label(name) for name in names[: len(name_columns(rows))]]


def verdict(group: Group, setting: Setting) -> dict[Row, str]:
    """Return which data-free rows of a column are `best`, and which `tied` with the best.

    Inductive and transductive rows each have a best (`best_first`). Tied: the 95 % t interval of
    the paired difference from the best contains 0. A row whose test tasks differ from the best's
    cannot be told and is not marked; seeds that both have count.
    """
    return {row: mark for one in group.rivals(setting) for row, mark in _marks(one).items()}


def _marks(results: dict[Row, Result]) -> dict[Row, str]:
    best = results[best_first(results)[0]]
    found = {}
    for row, result in results.items():
        if (result.seeds, result.mean) == (best.seeds, best.mean):
            found[row] = "best"
        elif (pair := paired(best, result)).reason is None:
            interval = mean_interval(pair.a.tasks - pair.b.tasks)
            if interval.low <= 0 <= interval.high:
                found[row] = "tied"
    return found


def with_other_pools(group: Group, setting: Setting) -> set[Row]:
    """Return the data-free rows of a column whose teachers are not those of the best of its kind.

    They are trained alike, or the rows would stand in another table.
    """
    found: set[Row] = set()
    for results in group.rivals(setting):
        best = results[best_first(results)[0]]
        pairs = {row: paired(best, result) for row, result in results.items()}
        found |= {r for r, one in pairs.items() if one.reason is None and one.has_two_pools}
    return found


def _columns(group: Group, seeds: bool) -> list[Column]:
    columns = name_columns(group.rows)
    for setting in group.settings:
        name = group.setting_header(setting)
        columns.append(Column(name, name, setting.data))
        if seeds:
            columns.append(Column(OVER_SEEDS, name, setting.data))
    return columns


def _line(
    group: Group,
    row: Row,
    verdicts: dict[Setting, dict[Row, str]],
    other_pool: bool,
    seeds: bool,
    notes: Footnotes,
) -> list[Entry]:
    marks = (notes.number(OTHER_POOL),) if other_pool else ()
    line = [Entry(row.name, notes=marks), *row_names(row, group.rows)[1:]]
    for setting in group.settings:
        result = group.results.get((row, setting))
        reasons = [start_note(group, row, setting)] if result and result.done else []
        line.append(_entry(result, verdicts[setting].get(row), notes, reasons))
        if seeds:
            line.append(label(spread_text(result)))
    return line


def _entry(
    result: Result | None, mark: str | None, notes: Footnotes, why: Sequence[str | None]
) -> Entry:
    if result is None:
        return Entry("–", notes=(notes.number("not run"),))
    if not result.done:
        failed = any(record.status == "failed" for record in result.missed)
        numbers = {notes.number(f"{r.status}: {r.reason}") for r in result.missed}
        return Entry("failed" if failed else "–", notes=tuple(sorted(numbers)))
    reasons = [f"without seed {r.seed}, {r.status}: {r.reason}" for r in result.missed]
    reasons += [note for note in (chance_note(result), *why) if note]
    return Entry(
        f"{100 * result.mean:.1f} ± {100 * result.ci95:.1f}",
        strong=mark == "best",
        tied=mark == "tied",
        notes=tuple(notes.number(reason) for reason in reasons),
    )


def spread_text(result: Result | None) -> str:
    """Return the seeds' spread in points, as `±0.4 over 3 seeds`, or which seed there is."""
    if result is None or not result.done:
        return "–"
    if result.spread is None:
        return f"seed {result.seeds[0]}"
    return f"±{100 * result.spread:.1f} over {len(result.done)} seeds"


def _caption(group: Group) -> str:
    record = group.first
    return " ".join(
        (
            f"Percent, mean ± 1.96·std/√n over n = "
            f"{counted(record.n_test_tasks, 'test task')} with "
            f"{counted(record.n_query, 'query image')} per class{_on_average(record)}.",
            "† tied with the best of its kind: the 95 % t interval of the paired difference "
            "contains 0. Inductive: each query is predicted alone; transductive: with the task's "
            "other queries, be it through batch norm only.",
            seeds_sentence(group),
            protocol_sentence(group),
            budget_sentence(group),
            origin_sentence(group.stored),
        )
    )


def _on_average(record: Record) -> str:
    return " on average" * (record.protocol.get("query_counts") == "dirichlet")
