"""The table of published figures beside ours, with a verdict on their comparison."""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from reports.rows.groups import Group
from reports.rows.results import Result, Row, Setting
from reports.tables.caption import CONSTANTS_ABOVE, origin_sentence
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

FILE = Path(__file__).parents[1] / "published" / "published.csv"
SOUGHT = ("purer",)
"""Methods of the papers that are reproduced: beside sourced rows, a missing source is said."""
COLUMNS = [
    Column("method", numeric=False),
    Column("learner", numeric=False),
    Column("setting", "setting", numeric=False),
    Column("ours %", "ours"),
    Column("published %", "published"),
    Column("of", "of", numeric=False),
    Column("grade", "grade", numeric=False),
    Column("protocol", "protocol", numeric=False),
    Column("verdict", "verdict", numeric=False),
]


@dataclass(frozen=True)
class Published:
    """A published figure in percent; `ours` is the registry name of its counterpart here, or ''.

    `grade` is `primary` (the paper itself) or `secondary` (another page that quotes it);
    `protocol` is the name under which our numbers would compare, or '' where there is none.
    """

    method: str
    ours: str
    learner: str
    scenario: str
    dataset: str
    n_way: int
    k_shot: int
    percent: float
    ci95: float | None
    protocol: str
    source: str
    grade: str
    note: str


@functools.cache
def published(path: Path = FILE) -> tuple[Published, ...]:
    """Return the published figures of a CSV file, which names source and grade of each."""
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            Published(
                n_way=int(row.pop("n_way")),
                k_shot=int(row.pop("k_shot")),
                percent=float(row.pop("accuracy_percent")),
                ci95=float(text) if (text := row.pop("ci95_percent")) else None,
                **row,
            )
            for row in csv.DictReader(file)
        )


def judge(ours: Result, figure: Published, protocol: str) -> tuple[str, str]:
    """Return the verdict on a published figure, and why where it cannot be compared.

    Consistent: the two differ by no more than their 95 % half-widths together, in quadrature; a
    figure without interval is taken as exact.

    Args:
        ours: our result.
        figure: the published one.
        protocol: the label of our protocol.
    """
    if figure.note or not figure.protocol:
        return "not comparable", figure.note or "its protocol is not stated"
    if figure.protocol != protocol:
        return "not comparable", f"it is of protocol {figure.protocol}, ours of {protocol}"
    gap = 100 * ours.mean - figure.percent
    if abs(gap) <= math.hypot(100 * ours.ci95, figure.ci95 or 0):
        return "consistent", ""
    return ("higher" if gap > 0 else "lower"), ""


def reproduction_table(group: Group, figures: tuple[Published, ...] | None = None) -> Table | None:
    """Return ours beside published figures, or None where none of the group has a source.

    Args:
        group: records that share tables.
        figures: published ones; None takes those of the package.
    """
    known = published() if figures is None else figures
    notes = Footnotes()
    lines = []
    sourced = False
    for setting in group.settings:
        for row in group.rows:
            result = group.results.get((row, setting))
            if result is None or not result.done or row.preset != "released":
                continue
            found = [one for one in known if _matches(one, row, setting, group)]
            lines += [_line(group, row, setting, result, one, notes) for one in found]
            sourced |= bool(found)
            if row.method in SOUGHT and row.calibration == "none" and not found:
                lines.append(_without(group, row, setting, result))
    if not sourced:
        return None
    return Table(
        kind="reproduction",
        title=f"Published figures: {group.name}",
        columns=COLUMNS,
        sections=[Section("", lines)],
        caption="Consistent: the two differ by no more than their 95 % half-widths over tasks, "
        "added in quadrature; else higher or lower. Not comparable: another protocol, budget or "
        "network. No source: no published figure could be traced to a page. Grade secondary: "
        f"quoted by another page. {CONSTANTS_ABOVE} {origin_sentence(group.stored)}",
        notes=notes.texts,
    )


def _matches(one: Published, row: Row, setting: Setting, group: Group) -> bool:
    return (
        (one.ours, one.learner) == (row.method, row.learner)
        and row.calibration == "none"
        and one.dataset == setting.data
        and (one.n_way, one.k_shot) == (setting.n_way, setting.k_shot)
        and one.scenario in ("", group.first.scenario)
    )


def _line(
    group: Group, row: Row, setting: Setting, result: Result, one: Published, notes: Footnotes
) -> list[Entry]:
    verdict, why = judge(result, one, group.first.protocol_label)
    half = "" if one.ci95 is None else f" ± {one.ci95:.1f}"
    source = notes.number(f"{one.method}: {one.source}")
    reasons = (notes.number(why),) if why else ()
    return [
        *_ours(group, row, setting, result),
        Entry(f"{one.percent:.1f}{half}", notes=(source,)),
        label(one.method),
        label(one.grade),
        label(one.protocol or "not stated"),
        Entry(verdict, notes=reasons),
    ]


def _without(group: Group, row: Row, setting: Setting, result: Result) -> list[Entry]:
    ours = _ours(group, row, setting, result)
    return [*ours, label("–"), label("–"), label("–"), label("–"), label("no source")]


def _ours(group: Group, row: Row, setting: Setting, result: Result) -> list[Entry]:
    text = f"{100 * result.mean:.1f} ± {100 * result.ci95:.1f}"
    return [label(row.name), label(row.head), label(group.setting_name(setting)), label(text)]
