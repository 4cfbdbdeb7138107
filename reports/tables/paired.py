"""The table of paired differences from reference rows, on identical test tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import counted
from bench.results.paired import ALPHA, FLIPS, Tasks, compare_all
from bench.stats import PairedDifference
from reports.rows.groups import Group
from reports.rows.results import Pair, Row, Setting, paired
from reports.tables.accuracy import name_columns, row_names
from reports.tables.caption import (
    CONSTANTS_ABOVE,
    detectable_sentence,
    origin_sentence,
    seeds_sentence,
)
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

SAME_LEARNER = ("random", "average", "best_teacher")
"""References that a method is compared with under the learner that it uses itself."""
ANY_LEARNER = ("ensemble_centroids",)
TWO_POOLS = "of two pools of teachers, trained alike; what the pools differ by is part of it"


@dataclass(frozen=True)
class Comparison:
    """A row minus a reference in one setting, or the reason why there is no difference.

    `seeds` are those that both have; `partial` where either has more; `two_pools` where their
    teachers differ, though no setting does.
    """

    row: Row
    reference: Row
    setting: Setting
    difference: PairedDifference | None = None
    p_holm: float | None = None
    reason: str = ""
    seeds: tuple[int, ...] = ()
    partial: bool = False
    two_pools: bool = False


def comparisons(group: Group) -> list[Comparison]:
    """Return all comparisons of a group, p-values adjusted by Holm over the whole group."""
    asked = [
        (row, reference, setting)
        for row, reference in reference_pairs(group.rows)
        for setting in group.settings
    ]
    pairs = [
        paired(group.results.get((row, setting)), group.results.get((reference, setting)))
        for row, reference, setting in asked
    ]
    numbers = compare_all([tasks_of(pair) for pair in pairs], group.memo)
    return [_comparison(group, *one) for one in zip(asked, pairs, numbers, strict=True)]


def _comparison(
    group: Group,
    asked: tuple[Row, Row, Setting],
    pair: Pair,
    numbers: tuple[PairedDifference, float] | None,
) -> Comparison:
    if numbers is None:
        return Comparison(*asked, reason=pair.reason or "")
    difference, p_holm = numbers
    row, reference, setting = asked
    seeds = [group.results[one, setting].seeds for one in (row, reference)]
    partial = any(one != pair.seeds for one in seeds)
    return Comparison(*asked, difference, p_holm, "", pair.seeds, partial, pair.has_two_pools)


def reference_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return which data-free rows are compared with which references, references first in order.

    A reference is met once: `average` is compared with `random`, not the reverse. Other presets are
    also compared with the released one, and calibrated rows with themselves uncalibrated.
    """
    pairs = []
    earlier: set[str] = set()
    for name in SAME_LEARNER + ANY_LEARNER:
        for reference in (row for row in rows if row.method == name and row.calibration == "none"):
            for row in rows:
                same = name in ANY_LEARNER or row.learner == reference.learner
                mirrored = name in SAME_LEARNER and row.method in earlier
                if row.ranked and row.method != name and same and not mirrored:
                    pairs.append((row, reference))
        earlier.add(name)
    pairs += [(row, one) for one in rows for row in rows if _retunes(row, one)]
    return pairs + [(row, one) for row in rows for one in rows if _calibrates(row, one)]


def _retunes(row: Row, other: Row) -> bool:
    """Tell whether a data-free row is another preset of a row with the released preset."""
    names = (row.method, row.learner, row.calibration, row.variant)
    same = names == (other.method, other.learner, other.calibration, other.variant)
    return row.ranked and same and row.preset != other.preset == "released"


def _calibrates(row: Row, other: Row) -> bool:
    """Tell whether a data-free row is another row with a calibration added."""
    names = (row.method, row.preset, row.learner)
    same = names == (other.method, other.preset, other.learner)
    variant = not other.variant or f"{row.variant}, ".startswith(f"{other.variant}, ")
    added = row.calibration != "none" and other.calibration == "none"
    return row.ranked and added and same and variant


def tasks_of(pair: Pair) -> Tasks | None:
    """Return the accuracies (n,) and (n,) of a pair's common tasks; None where it has none."""
    return None if pair.reason else (pair.a.tasks, pair.b.tasks)


def paired_table(group: Group) -> Table | None:
    """Return the table of a group, or None where no reference is among its rows."""
    found = comparisons(group)
    if not found:
        return None
    notes = Footnotes()
    names = list(dict.fromkeys(one.reference for one in found))
    same_named = {r: sum(r.full_name == other.full_name for other in names) for r in names}
    sections = []
    for reference in names:
        head = f" with {reference.head}" if same_named[reference] > 1 else ""
        chosen = [one for one in found if one.reference == reference]
        heading = f"minus {reference.full_name}{head}"
        sections.append(Section(heading, _lines(chosen, group.rows, notes)))
    return Table(
        kind="paired",
        title=f"Paired differences: {group.name}",
        columns=_columns(group),
        sections=sections,
        caption=_caption(group, sum(one.difference is not None for one in found)),
        strong_means=f"a Holm-adjusted p below {ALPHA}",
        notes=notes.texts,
    )


def _columns(group: Group) -> list[Column]:
    columns = name_columns(group.rows)
    for setting in group.settings:
        name = group.setting_header(setting)
        columns += [Column(name, name, setting.data), Column("p", name, setting.data)]
    return columns


def _lines(
    chosen: Sequence[Comparison], rows: Sequence[Row], notes: Footnotes
) -> list[list[Entry]]:
    lines = []
    for row in dict.fromkeys(one.row for one in chosen):
        mine = [one for one in chosen if one.row == row]
        some = sorted({one.seeds for one in mine if one.partial})
        marks = tuple(notes.number(both_have(seeds)) for seeds in some)
        names = row_names(row, rows)
        line = [Entry(row.name, notes=marks), *names[1:]]
        lines.append(line + [entry for one in mine for entry in _entries(one, notes)])
    return lines


def _entries(one: Comparison, notes: Footnotes) -> list[Entry]:
    d, p = one.difference, one.p_holm
    if d is None or p is None:
        return [Entry("–", notes=(notes.number(one.reason),)), label("–")]
    text = f"{signed(d.mean)} [{signed(d.low)}, {signed(d.high)}]"
    marks = (notes.number(TWO_POOLS),) if one.two_pools else ()
    return [Entry(text, strong=p < ALPHA, notes=marks), label(p_text(p))]


def both_have(seeds: Sequence[int]) -> str:
    """Return the footnote of a difference that is of fewer seeds than one of the two has."""
    return f"on the seeds that both have: {', '.join(map(str, seeds))}"


def p_text(p: float) -> str:
    """Return a p-value as shown: three digits, and never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(fraction: float) -> str:
    """Return a fraction as points with sign, `+3.1`; what rounds to zero is `+0.0`."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"


def _caption(group: Group, n: int) -> str:
    seeds = {one.record.seed for one in group.stored}
    averaged = " Each task's accuracy is averaged over the seeds first." if len(seeds) > 1 else ""
    return (
        "Difference of accuracies in points with its 95 % t interval, over the same "
        f"{counted(group.first.n_test_tasks, 'test task')}.{averaged} p: two-sided sign-flip "
        f"permutation test ({FLIPS:,} flips), Holm-adjusted over the comparisons of this table "
        f"(n = {n}). "
        f"{detectable_sentence(group)}"
        f"{seeds_sentence(group).split(':')[0].rstrip('.')}. "
        f"{CONSTANTS_ABOVE} {origin_sentence(group.stored)}"
    )


def comparison_rows(group: Group) -> list[dict[str, object]]:
    """Return the comparisons as flat rows for a script; differences are fractions."""
    rows: list[dict[str, object]] = []
    for one in comparisons(group):
        d = one.difference
        rows.append(
            {
                "group": group.name,
                "setting": group.setting_name(one.setting),
                "method": one.row.name,
                "learner": one.row.head,
                "reference": one.reference.name,
                "reference_learner": one.reference.head,
                "difference": d.mean if d else None,
                "low": d.low if d else None,
                "high": d.high if d else None,
                "p_value": d.p_value if d else None,
                "p_holm": one.p_holm,
                "n": d.n if d else None,
                "seeds": list(one.seeds),
                "two_pools": one.two_pools,
                "reason": one.reason or None,
            }
        )
    return rows
