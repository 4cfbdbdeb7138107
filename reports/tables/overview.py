"""Overview tables: methods × scenarios, for one protocol, task shape and number of tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from bench.errors import counted
from reports.rows.groups import Group, section_heading, section_place
from reports.rows.results import Row, Setting
from reports.tables.accuracy import (
    BEST,
    OTHER_POOL,
    name_columns,
    row_names,
    verdict,
    with_other_pools,
)
from reports.tables.caption import origin_sentence
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

Place = tuple[Group, Setting]


def overview_tables(groups: Sequence[Group]) -> list[Table]:
    """Return the tables of each protocol that has several groups, one for each shape of tasks.

    Numbers compare down a column. A variant of a protocol is another protocol.
    """
    found: dict[tuple[str, str, int, int], list[Group]] = defaultdict(list)
    for group in groups:
        first = group.first
        found[first.protocol_label, first.variant, first.n_test_tasks, first.n_query].append(group)
    several = [(key, members) for key, members in found.items() if len(members) > 1]
    return [
        _table(", ".join(filter(None, (name, variant))), members, shape)
        for (name, variant, *_), members in several
        for shape in sorted({s.shape for group in members for s in group.settings})
    ]


def _table(protocol: str, groups: Sequence[Group], shape: tuple[int, int]) -> Table:
    places = [(g, setting) for g in groups for setting in g.settings if setting.shape == shape]
    groups = list({id(group): group for group, _ in places}.values())
    notes = Footnotes()
    marked = [(place, verdict(*place), with_other_pools(*place)) for place in places]
    found = {row for g, setting in places for row in g.rows_of(setting)}
    rows = sorted(found, key=lambda row: (section_place(row), row))
    sections = [
        Section(
            heading,
            [
                [*row_names(row, rows), *(_entry(row, *one, notes) for one in marked)]
                for row in members
            ],
        )
        for heading, members in groupby(rows, key=section_heading)
    ]
    stored = [one for group in groups for one in group.stored]
    return Table(
        kind="overview",
        title=f"Methods and scenarios, {shape[0]}-way {shape[1]}-shot: protocol {protocol}, "
        f"{counted(groups[0].first.n_test_tasks, 'test task')}",
        columns=[
            *name_columns(rows),
            *(_column(group, setting, groups) for group, setting in places),
        ],
        sections=sections,
        caption="Percent, mean ± 1.96·std/√n over test tasks; –: not run, or without result for "
        "the reason given in the scenario's table. † tied with the best of its kind by the paired "
        "interval; two rows are compared on the seeds that both have. "
        "Columns differ in data, pools or counts: compare within a column only. "
        f"{origin_sentence(stored)}",
        strong_means=BEST,
        notes=notes.texts,
    )


def _column(group: Group, setting: Setting, groups: Sequence[Group]) -> Column:
    first = group.first
    twins = [g for g in groups if g.first.scenario == first.scenario and setting in g.settings]
    number = f" ({[g is group for g in twins].index(True) + 1})" if len(twins) > 1 else ""
    header = f"{first.scenario}{number}\n{group.setting_data(setting)}"
    return Column(header, header, first.scenario)


def _entry(
    row: Row, place: Place, marks: dict[Row, str], other_pools: set[Row], notes: Footnotes
) -> Entry:
    group, setting = place
    result = group.results.get((row, setting))
    if result is None or not result.done:
        return label("–")
    text = f"{100 * result.mean:.1f} ± {100 * result.ci95:.1f}"
    numbers = (notes.number(OTHER_POOL),) if row in other_pools else ()
    mark = marks.get(row)
    return Entry(text, strong=mark == "best", tied=mark == "tied", notes=numbers)
