"""The table of agreement: which queries two methods both answer right, and which only one."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from reports.rows.groups import Group, on_common_seeds
from reports.rows.results import Row, Setting
from reports.tables.accuracy import name_columns, row_names
from reports.tables.caption import origin_sentence, protocol_sentence
from reports.tables.table import Column, Entry, Section, Table, label

MOST_ROWS = 8
"""The most accurate rows of a setting that are compared with one another."""


class Agreement(NamedTuple):
    """Shares of the queries, fractions, that two rows answer right: both, or one of them alone."""

    both: float
    only_row: float
    only_other: float


Answers = dict[Row, np.ndarray]
"""Which queries of a setting each row answered right, (seeds, n, q) bool."""


def agreement_table(group: Group) -> Table | None:
    """Return the table of a group; None where no two rows of a setting have predictions."""
    parts = _parts(group)
    if not parts:
        return None
    others = sorted({row for answers in parts.values() for row in answers}, key=group.rows.index)
    return Table(
        kind="agreement",
        title=f"Agreement: {group.name}",
        columns=[*name_columns(others), *(Column(_heading(row), _heading(row)) for row in others)],
        sections=[_section(group, setting, parts[setting], others) for setting in parts],
        caption=(
            "Percent of the queries of the test tasks, on the seeds that all methods have. "
            "Diagonal: the accuracy of the row. "
            "Elsewhere: queries that both methods answer correctly / queries that only the row's "
            "method answers correctly. Where the second number is large, the methods make "
            f"different errors and may be worth combining. The {MOST_ROWS} most accurate methods "
            f"of each setting whose records hold predictions. {protocol_sentence(group)} "
            f"{origin_sentence(group.stored)}"
        ),
        strong_means="the accuracy of the row",
    )


def agreement_rows(group: Group) -> list[dict[str, object]]:
    """Return each pair of rows as flat values for a script; shares are fractions."""
    found: list[dict[str, object]] = []
    for setting, answers in _parts(group).items():
        place = {"group": group.name, "setting": group.setting_name(setting)}
        for row, other in itertools.combinations(answers, 2):
            if (one := _agreement(answers, row, other)) is not None:
                names = {"method": row.name, "learner": row.head}
                names |= {"other": other.name, "other_learner": other.head}
                found.append({**place, **names, **one._asdict()})
    return found


def _heading(row: Row) -> str:
    return f"{row.name}\n{row.head}"


def _section(group: Group, setting: Setting, answers: Answers, others: list[Row]) -> Section:
    lines = []
    for row in answers:
        entries = [_entry(answers, row, other) for other in others]
        lines.append([*row_names(row, others), *entries])
    return Section(group.setting_name(setting), lines)


def _entry(answers: Answers, row: Row, other: Row) -> Entry:
    if other == row:
        return Entry(f"{100 * answers[row].mean():.1f}", strong=True)
    one = _agreement(answers, row, other)
    return label("–" if one is None else f"{100 * one.both:.1f} / {100 * one.only_row:.1f}")


def _agreement(answers: Answers, row: Row, other: Row) -> Agreement | None:
    a, b = answers[row], answers.get(other)
    if b is None or a.shape != b.shape:
        return None
    both = float((a & b).mean())
    return Agreement(both, float(a.mean()) - both, float(b.mean()) - both)


def _parts(group: Group) -> dict[Setting, Answers]:
    """Return the answers of the settings where two rows have some, the most accurate row first.

    On the seeds that all rows have, where there are such.
    """
    (group,), _ = on_common_seeds([group])
    found = {setting: _answers(group, setting) for setting in group.settings}
    return {setting: answers for setting, answers in found.items() if len(answers) > 1}


def _answers(group: Group, setting: Setting) -> Answers:
    """Return the answers of a setting's most accurate rows to the tasks and seeds of the first."""
    rows = [row for row in group.rows_of(setting) if group.results[row, setting].done]
    rows.sort(key=lambda row: group.results[row, setting].mean, reverse=True)
    found: Answers = {}
    first = None
    for row in rows:
        result = group.results[row, setting]
        met = result.task_list, result.seeds
        if len(found) == MOST_ROWS or result.task_list is None or met != (first or met):
            continue
        if (seeds := result.predictions()) is not None:
            found[row], first = np.stack([one.hits for one in seeds]), met
    return found
