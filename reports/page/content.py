"""The content of the page, as plain values for the template."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.results.record import Record
from bench.results.store import StoredRecord
from bench.stats import Interval
from reports.figures.drawing import Drawing
from reports.rows.groups import Group
from reports.sentences import sentences, shown_row
from reports.tables.cost import amount, rate
from reports.tables.paired import signed
from reports.tables.summary import Leader, leaders, over_classes, over_seeds
from reports.tables.table import Table

HALF_PAGE = 650
"""Points; figures that are wider stand alone in their row."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its address is data, so that the page stands alone."""

    name: str
    title: str
    caption: str
    alt: str
    address: str
    wide: bool = False
    """whether it needs the page's whole width to be read"""


@dataclass(frozen=True)
class Part:
    """What the page shows of one group."""

    slug: str
    short: str
    name: str
    tables: list[Table]
    pictures: list[Picture] = field(default_factory=list)


def picture(drawing: Drawing, svg: bytes, address: str = "") -> Picture:
    """Return a figure as a page shows it, from an address or, without one, from its own data."""
    address = address or "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    width = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
    wide = width is not None and float(width[1]) > HALF_PAGE
    return Picture(drawing.name, drawing.title, drawing.caption, drawing.alt, address, wide)


def slug(group: Group, groups: Sequence[Group]) -> str:
    """Return a short name of a group for files and links, distinct among the groups."""
    first = group.first
    plain = "-".join([first.scenario, first.protocol_label, *sorted(first.datasets)[:1]])
    plain = "".join(c if c.isalnum() else "-" for c in plain.lower())
    plain = "-".join(word for word in plain.split("-") if word)
    return f"{plain}-{groups.index(group) + 1}"


def short_name(group: Group) -> str:
    """Return the name of a group in headings."""
    data = ", ".join(dict.fromkeys(setting.data for setting in group.settings))
    return f"{group.first.scenario} {data}: {_protocol(group)}"


def protocol_name(group: Group) -> str:
    """Return a group's scenario and protocol."""
    return f"{group.first.scenario}, {_protocol(group)}"


def _protocol(group: Group) -> str:
    return group.first.protocol_label + (f", {group.first.variant}" if group.first.variant else "")


def compared(groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose accuracies compare methods; all groups if no teacher is trained."""
    trained = [one for one in groups if one.first.protocol.get("teachers") != "untrained"]
    return trained or list(groups)


def percent(value: float) -> str:
    """Return a fraction as percent with one decimal, without sign."""
    return f"{100 * value:.1f}"


def span(interval: Interval | None) -> str:
    """Return an interval in percent, or a dash."""
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else "–"


def all_leader_lines(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return the summary's data about each setting of the groups that compare methods."""
    return [line for group in compared(groups) for line in leader_lines(group)]


def leader_lines(group: Group) -> list[dict[str, str]]:
    """Return the summary's data about each setting of a group."""
    return [_leader_line(group, one) for one in leaders(group)]


def _leader_line(group: Group, leader: Leader) -> dict[str, str]:
    records = [one.record for one in leader.result.done]
    return {
        "where": f"{group.setting_name(leader.setting)}, {leader.row.inference}",
        "scenario": protocol_name(group),
        "best": shown_row(leader.row, group),
        "accuracy": f"{percent(leader.result.mean)} ± {percent(leader.result.ci95)}",
        "classes": span(over_classes(group, leader.result)),
        "seeds": span(over_seeds(leader.result)),
        "lead": _lead(leader, group),
        "sure": _sure(leader, group),
        "cost": _price(records),
        "oracle": _oracle(leader),
    }


def _price(records: Sequence[Record]) -> str:
    fit = [r.fit_seconds for r in records if r.fit_seconds is not None]
    macs = [r.cost.macs_per_query_image for r in records if r.cost.macs_per_query_image]
    texts = []
    if fit:
        seconds = float(np.mean(fit))
        texts.append(f"fit {rate(seconds)} s" if seconds >= 0.01 else "no training")
    if macs:
        texts.append(f"{amount(float(np.mean(macs)))} MACs per query")
    return "; ".join(texts) or "–"


def _lead(leader: Leader, group: Group) -> str:
    if leader.next_row is None:
        return "nothing to compare"
    other = shown_row(leader.next_row, group)
    if leader.lead is None:
        single = leader.result.n_tasks == 1
        return f"over {other}: {'a single task' if single else 'not on the same tasks'}"
    low, high = signed(leader.lead.low), signed(leader.lead.high)
    return f"{signed(leader.lead.mean)} [{low},\u00a0{high}] over {other}{leader.remark}"


def _sure(leader: Leader, group: Group) -> str:
    n = len(leader.result.done)
    seeds = "one seed" if n == 1 else f"{n} seeds"
    if leader.ahead is None or leader.detectable is None:
        return seeds
    if leader.ties:
        tied = ", ".join(shown_row(row, group) for row in leader.ties)
        return f"tied with {tied} (a lead of {percent(leader.detectable)} would show); {seeds}"
    if not leader.clear:
        return seeds
    return f"clear, on {100 * leader.ahead:.0f} % of tasks; {seeds}"


def _oracle(leader: Leader) -> str:
    if leader.oracle is None:
        return "–"
    row, result = leader.oracle
    return f"{percent(result.mean)} ({row.name})"


def answer(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return what the page says first, each with its heading; nothing without a data-free row."""
    headings = ("What is best", "What it costs", "What not to conclude")
    return list(zip(headings, sentences(groups) or (), strict=False))


def warnings(groups: Sequence[Group], stored: Sequence[StoredRecord]) -> list[str]:
    """Return the warnings that apply before a number is quoted."""
    records = [one.record for one in stored]
    found = []
    labels = sorted({record.protocol_label for record in records})
    if len(labels) > 1:
        found.append(
            f"{len(labels)} protocols are on this page ({', '.join(labels)}); numbers of "
            "different protocols stand in different tables and do not compare"
        )
    single = [g for g in groups if len({one.record.seed for one in g.stored}) == 1]
    if single:
        where = "all" if len(single) == len(groups) else f"{len(single)} of {len(groups)}"
        found.append(
            f"one seed in {where} sections of results: intervals there are over test tasks "
            "and say nothing of other pools"
        )
    for status in ("failed", "skipped"):
        n = sum(record.status == status for record in records)
        if n:
            found.append(f"{_cells(n)} {status}; the tables say why")
    counts: dict[str, int] = {}
    for record in records:
        for text in record.warnings:
            counts[text] = counts.get(text, 0) + 1
    found += [f"{text} ({_cells(n)})" for text, n in sorted(counts.items())]
    return found


def _cells(n: int) -> str:
    return f"{n} cell{'' if n == 1 else 's'}"
