"""What each choice is worth: one method under protocols that differ in one choice at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.records import Record, StoredRecord, canonical_json
from bench.seeds import numpy_generator
from bench.stats import (
    Interval,
    PairedDifference,
    holm,
    paired_difference,
    unpaired_difference,
)
from reports.caption import budget_sentence, origin_sentence, protocol_sentence, seeds_sentence
from reports.groups import Group, Result, Setting, unpaired
from reports.model import Column, Entry, Footnotes, Section, Table, label
from reports.paired import ALPHA, FLIPS, signed

OTHER_TASKS = "not the same test tasks"
UNPAIRED = "other test tasks: Welch's interval of the unpaired difference, no test"
COUPLED = {"n_teachers": "pool"}
"""Constants that go with another, and are no choice of their own where that one differs."""


@dataclass(frozen=True)
class Choice:
    """One protocol of a family: its constants, its name, and how the name is departed from."""

    constants: dict[str, Any]
    name: str
    variant: str

    @property
    def text(self) -> str:
        """The protocol as shown."""
        return self.name + (f", {self.variant}" if self.variant else "")

    def differences(self, other: Choice) -> list[str]:
        """Return the constants in which two protocols differ, in their order."""
        keys = [k for k, v in self.constants.items() if other.constants.get(k) != v]
        return [k for k in keys if COUPLED.get(k) not in keys]


@dataclass(frozen=True)
class Family:
    """Records of one method, learner and budget that differ in protocol, data, shots and seed.

    `against[i]` is the number of the choice that choice i is compared with; None for the
    reference, which is the first.
    """

    choices: list[Choice]
    against: list[int | None]
    stored: list[list[StoredRecord]]
    settings: list[Setting]

    @property
    def title(self) -> str:
        """What the records have in common."""
        r = self.stored[0][0].record
        preset = "" if r.preset == "released" else f" ({r.preset})"
        calibration = "" if r.calibration == "none" else f" + {r.calibration}"
        return (
            f"{r.method}{preset} with {r.learner}{calibration}, {r.scenario}, budget "
            f"{r.budget['name']}, {r.net} meta-model, {'+'.join(r.architectures)} teachers, "
            f"{r.n_test_tasks} test tasks"
        )

    def result(self, choice: int, setting: Setting) -> Result:
        """Return the records of one choice in one setting, the seeds inside."""
        return Result([one for one in self.stored[choice] if _setting(one.record) == setting])


@dataclass(frozen=True)
class Worth:
    """What a choice is worth in one setting: a paired difference, an unpaired one, or a reason."""

    choice: int
    setting: Setting
    paired: PairedDifference | None = None
    unpaired: Interval | None = None
    p_holm: float | None = None
    reason: str | None = None


def hazard_families(stored: Sequence[StoredRecord]) -> list[Family]:
    """Return the families in which at least two protocols differ in one choice from a third.

    The reference is the protocol that most others differ from in one choice; of equals, one that
    is a named protocol. A protocol that differs from it in several choices is compared with one
    that it differs from in a single choice, where there is such a one.
    """
    members: dict[str, list[StoredRecord]] = defaultdict(list)
    for one in stored:
        members[_family_key(one.record)].append(one)
    found = [_family(group) for _, group in sorted(members.items())]
    return [family for family in found if family is not None]


def _family_key(record: Record) -> str:
    fields = record.model_dump(mode="json")
    names = ("scenario", "net", "architectures", "method", "preset", "method_config", "learner")
    names += ("calibration", "budget", "n_query", "n_test_tasks")
    extra = [fields.get("calibration_config")]
    return canonical_json([fields[name] for name in names] + extra)


def _family(stored: Sequence[StoredRecord]) -> Family | None:
    places: dict[str, list[StoredRecord]] = defaultdict(list)
    for one in stored:
        places[canonical_json(_constants(one.record))].append(one)
    keys = sorted(places)
    choices = [_choice(places[key][0].record) for key in keys]
    steps = [[len(a.differences(b)) for b in choices] for a in choices]
    hub = max(range(len(keys)), key=lambda i: (steps[i].count(1), not choices[i].variant, -i))
    if steps[hub].count(1) < 2:
        return None
    order = [hub, *_ordered(choices, hub, steps)]
    against = [None] + [order.index(_compared(i, hub, steps)) for i in order[1:]]
    return Family(
        [choices[i] for i in order],
        against,
        [places[keys[i]] for i in order],
        sorted({_setting(one.record) for one in stored}),
    )


def _constants(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.protocol.items() if key != "name"}


def _choice(record: Record) -> Choice:
    return Choice(_constants(record), record.protocol["name"], record.variant)


def _ordered(choices: Sequence[Choice], hub: int, steps: Sequence[Sequence[int]]) -> list[int]:
    """Return the others: single choices in the protocol's order, then what differs in more."""
    keys = list(choices[hub].constants)

    def place(i: int) -> tuple[Any, ...]:
        changed = choices[hub].differences(choices[i])
        followed = _compared(i, hub, steps)
        return followed == hub and len(changed) > 1, [keys.index(k) for k in changed], i

    return sorted((i for i in range(len(choices)) if i != hub), key=place)


def _compared(i: int, hub: int, steps: Sequence[Sequence[int]]) -> int:
    if steps[hub][i] == 1:
        return hub
    return next((j for j, n in enumerate(steps[i]) if n == 1 and steps[hub][j] == 1), hub)


def _setting(record: Record) -> Setting:
    digests = tuple(record.dataset_digests.get(name, "") for name in record.datasets)
    return Setting(tuple(record.tested), record.n_way, record.k_shot, digests)


def worths(family: Family) -> list[Worth]:
    """Return what each choice is worth, p-values adjusted by Holm over the whole family."""
    found = [
        _worth(family, choice, setting)
        for choice in range(1, len(family.choices))
        for setting in family.settings
    ]
    made = [one.paired.p_value for one in found if one.paired]
    adjusted = iter(holm(made))
    return [replace(one, p_holm=float(next(adjusted))) if one.paired else one for one in found]


def _worth(family: Family, choice: int, setting: Setting) -> Worth:
    a, b = family.result(choice, setting), family.result(family.against[choice], setting)
    reason = unpaired(a, b)
    if reason is None:
        cells = (one.record.cell_hash for one in (*a.done, *b.done))
        generator = numpy_generator("hazards", *cells)
        difference = paired_difference(a.tasks, b.tasks, FLIPS, generator)
        return Worth(choice, setting, paired=difference)
    if reason == OTHER_TASKS and a.seeds == b.seeds and len(a.tasks) > 1:
        return Worth(choice, setting, unpaired=unpaired_difference(a.tasks, b.tasks))
    return Worth(choice, setting, reason=reason)


def hazards_table(family: Family) -> Table:
    """Return the table of a family: accuracy, difference from the reference, p."""
    notes = Footnotes()
    found = {(one.choice, one.setting): one for one in worths(family)}
    first = [_line(family, 0, found, notes)]
    sections = [Section("the reference", first)]
    for reference in dict.fromkeys(n for n in family.against if n is not None):
        members = [i for i, n in enumerate(family.against) if n == reference]
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
    columns = [Column("choice", numeric=False), Column("value", numeric=False)]
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


def _value(value: Any) -> str:
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
    if worth.paired is not None:
        p = "<0.001" if worth.p_holm < 0.001 else f"{worth.p_holm:.3f}"
        return [Entry(_interval(worth.paired), strong=worth.p_holm < ALPHA), label(p)]
    text = _interval(worth.unpaired) if worth.unpaired else "–"
    note = notes.number(UNPAIRED if worth.unpaired else worth.reason)
    return [Entry(text, notes=(note,)), label("–")]


def _interval(found: Interval | PairedDifference) -> str:
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def _caption(family: Family, n: int) -> str:
    group = Group(family.title, family.stored[0], {})
    everything = [one for stored in family.stored for one in stored]
    return (
        "Percent, mean ± 1.96·std/√n over the test tasks. Difference in points from the reference, "
        "everything else equal, with its 95 % t interval over the same test tasks. p: two-sided "
        f"sign-flip permutation test ({FLIPS} flips), Holm-adjusted over the comparisons of this "
        f"table (n = {n}). One fit each: the interval covers test tasks, not another run of the "
        f"same choice. {seeds_sentence(group).split(':')[0].rstrip('.')}. The reference: "
        f"{protocol_sentence(group)} {budget_sentence(group)} {origin_sentence(everything)}"
    )


def hazard_rows(family: Family) -> list[dict[str, Any]]:
    """Return the table as flat rows for a script; accuracies and differences are fractions."""
    found = {(one.choice, one.setting): one for one in worths(family)}
    return [
        _row(family, choice, setting, found.get((choice, setting)))
        for choice in range(len(family.choices))
        for setting in family.settings
    ]


def _row(family: Family, choice: int, setting: Setting, worth: Worth | None) -> dict[str, Any]:
    result = family.result(choice, setting)
    name, value = _names(family, choice)
    against = family.against[choice]
    d = (worth.paired or worth.unpaired) if worth else None
    return {
        "family": family.title,
        "datasets": setting.data,
        "n_way": setting.n_way,
        "k_shot": setting.k_shot,
        "choice": name,
        "value": value,
        "protocol": family.choices[choice].text,
        "against": None if against is None else family.choices[against].text,
        "accuracy": result.mean if result.done else None,
        "ci95": result.ci95 if result.done else None,
        "difference": d.mean if d else None,
        "low": d.low if d else None,
        "high": d.high if d else None,
        "paired": bool(worth and worth.paired) if d else None,
        "p_value": worth.paired.p_value if worth and worth.paired else None,
        "p_holm": worth.p_holm if worth else None,
        "reason": worth.reason if worth else None,
    }
