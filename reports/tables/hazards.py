"""The hazards table: one method under protocols that differ by one choice at a time."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results.memo import Memo
from bench.results.paired import ALPHA, FLIPS, compare_all
from bench.stats import (
    Interval,
    PairedDifference,
    unpaired_difference,
)
from reports.rows.families import OF_THE_POOL, Family
from reports.rows.groups import Group
from reports.rows.results import OTHER_TASKS, Pair, Result, Setting, paired
from reports.tables.caption import budget_sentence, origin_sentence, protocol_sentence
from reports.tables.paired import TWO_POOLS, both_have, p_text, signed, tasks_of
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

UNPAIRED = "other test tasks: Welch's interval of the unpaired difference, no test"


@dataclass(frozen=True)
class Worth:
    """The effect of a choice in one setting: a paired or unpaired difference, or a reason."""

    choice: int
    setting: Setting
    paired: PairedDifference | None = None
    unpaired: Interval | None = None
    p_holm: float | None = None
    reason: str = ""
    seeds: tuple[int, ...] = ()
    partial: bool = False
    """whether either of the two has more seeds than the difference is of"""
    two_pools: bool = False
    """whether the teachers of the two differ, though the choice is none of the pool"""


def worths(family: Family) -> list[Worth]:
    """Return the effect of each choice, p-values adjusted by Holm over the whole family."""
    asked = [
        (choice, setting) for choice in range(1, len(family.choices)) for setting in family.settings
    ]
    pairs = [
        paired(family.result(choice, setting), family.result(family.against[choice], setting))
        for choice, setting in asked
    ]
    found = compare_all([tasks_of(pair) for pair in pairs], Memo())
    return [
        _paired(family, *one, pair, *numbers) if numbers else _unpaired(*one, pair)
        for one, pair, numbers in zip(asked, pairs, found, strict=True)
    ]


def _paired(
    family: Family,
    choice: int,
    setting: Setting,
    pair: Pair,
    difference: PairedDifference,
    p_holm: float,
) -> Worth:
    both = [family.result(one, setting).seeds for one in (choice, family.against[choice])]
    partial = any(seeds != pair.seeds for seeds in both)
    before = family.choices[family.against[choice]]
    same = OF_THE_POOL.isdisjoint(before.differences(family.choices[choice]))
    return Worth(
        choice,
        setting,
        paired=difference,
        p_holm=p_holm,
        seeds=pair.seeds,
        partial=partial,
        two_pools=same and pair.has_two_pools,
    )


def _unpaired(choice: int, setting: Setting, pair: Pair) -> Worth:
    if pair.reason == OTHER_TASKS and len(pair.a.tasks) > 1:
        difference = unpaired_difference(pair.a.tasks, pair.b.tasks)
        return Worth(choice, setting, unpaired=difference)
    return Worth(choice, setting, reason=pair.reason or "")


def hazards_table(family: Family) -> Table:
    """Return the table of a family: accuracy, difference from the reference, p."""
    notes = Footnotes()
    found = {(one.choice, one.setting): one for one in worths(family)}
    first = [_line(family, 0, found, notes)]
    sections = [Section("the reference", first)]
    for reference in dict.fromkeys(family.against):
        members = [i for i, n in enumerate(family.against) if i and n == reference]
        lines = [_line(family, i, found, notes) for i in members]
        sections.append(Section(f"minus {family.choices[reference].text}", lines))
    paired = sum(one.paired is not None for one in found.values())
    return Table(
        kind="hazards",
        title=f"What each choice is worth: {family.title}",
        columns=_columns(family),
        sections=sections,
        caption=_caption(family, paired),
        strong_means=f"a Holm-adjusted p below {ALPHA}",
        notes=notes.texts,
    )


def _columns(family: Family) -> list[Column]:
    columns = [
        Column("choice", numeric=False, wraps=True),
        Column("value", numeric=False, wraps=True),
    ]
    for setting in family.settings:
        name = f"{setting.data}\n{setting.n_way}-way {setting.k_shot}-shot"
        columns += [
            Column(name, name, setting.data),
            Column("difference", name, setting.data),
            Column("p", name, setting.data),
        ]
    return columns


def _names(family: Family, choice: int) -> tuple[str, str]:
    """Return what was chosen, and the value before and after."""
    one = family.choices[choice]
    if choice == 0:
        return one.text, "–"
    before = family.choices[family.against[choice]]
    changed = before.differences(one)
    if len(changed) > 1:
        return one.text, ", ".join(changed)
    values = (_value(c.constants[changed[0]]) for c in (before, one))
    return changed[0], " → ".join(values)


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def _line(
    family: Family, choice: int, found: dict[tuple[int, Setting], Worth], notes: Footnotes
) -> list[Entry]:
    line = [label(name) for name in _names(family, choice)]
    for setting in family.settings:
        line.append(_accuracy(family.result(choice, setting), notes))
        worth = found.get((choice, setting))
        line += [label("–"), label("–")] if worth is None else _difference(worth, notes)
    return line


def _accuracy(result: Result, notes: Footnotes) -> Entry:
    missed = tuple(sorted({notes.number(f"{r.status}: {r.reason}") for r in result.missed}))
    if not result.done:
        return Entry("–", notes=missed or (notes.number("not run"),))
    return Entry(f"{100 * result.mean:.1f} ± {100 * result.ci95:.1f}", notes=missed)


def _difference(worth: Worth, notes: Footnotes) -> list[Entry]:
    if worth.paired is not None and worth.p_holm is not None:
        texts = [both_have(worth.seeds)] * worth.partial + [TWO_POOLS] * worth.two_pools
        marks = tuple(notes.number(text) for text in texts)
        return [
            Entry(_interval(worth.paired), strong=worth.p_holm < ALPHA, notes=marks),
            label(p_text(worth.p_holm)),
        ]
    text = _interval(worth.unpaired) if worth.unpaired else "–"
    note = notes.number(UNPAIRED if worth.unpaired else worth.reason)
    return [Entry(text, notes=(note,)), label("–")]


def _interval(found: Interval | PairedDifference) -> str:
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def _caption(family: Family, n: int) -> str:
    group = Group(family.title, family.stored[0], {})
    everything = [one for stored in family.stored for one in stored]
    seeds = sorted({one.record.seed for one in everything})
    return (
        "Percent, mean ± 1.96·std/√n over the test tasks. Difference in points from the reference, "
        "everything else equal, with its 95 % t interval over the same test tasks. p: two-sided "
        f"sign-flip permutation test ({FLIPS:,} flips), Holm-adjusted over the comparisons of this "
        f"table (n = {n}). The interval covers test tasks, not another run of the same choice. "
        f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. The reference: "
        f"{protocol_sentence(group)} {budget_sentence(group)} {origin_sentence(everything)}"
    )


def hazard_rows(family: Family) -> list[dict[str, object]]:
    """Return the table as flat rows for a script; accuracies and differences are fractions."""
    found = {(one.choice, one.setting): one for one in worths(family)}
    return [
        _row(family, choice, setting, found.get((choice, setting)))
        for choice in range(len(family.choices))
        for setting in family.settings
    ]


def _row(family: Family, choice: int, setting: Setting, worth: Worth | None) -> dict[str, object]:
    result = family.result(choice, setting)
    name, value = _names(family, choice)
    d = (worth.paired or worth.unpaired) if worth else None
    return {
        "family": family.title,
        "datasets": setting.data,
        "n_way": setting.n_way,
        "k_shot": setting.k_shot,
        "choice": name,
        "value": value,
        "protocol": family.choices[choice].text,
        "against": family.choices[family.against[choice]].text if choice else None,
        "accuracy": result.mean if result.done else None,
        "ci95": result.ci95 if result.done else None,
        "difference": d.mean if d else None,
        "low": d.low if d else None,
        "high": d.high if d else None,
        "paired": bool(worth and worth.paired) if d else None,
        "p_value": worth.paired.p_value if worth and worth.paired else None,
        "p_holm": worth.p_holm if worth else None,
        "seeds": "+".join(map(str, worth.seeds)) if worth and worth.paired else None,
        "reason": worth.reason or None if worth else None,
    }
