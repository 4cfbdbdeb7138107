"""Families of protocols that differ by one choice at a time, and their reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import counted
from bench.results.files import canonical_json
from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.rows.groups import versions_of
from reports.rows.results import Result, Setting

COUPLED = {"n_teachers": "pool"}
"""Constants that go with another, and are no choice of their own where that one differs."""
OF_THE_POOL = frozenset(
    {
        *("pool", "n_teachers", "shared_initialisation", "teachers", "teacher_image_size"),
        *("teacher_checkpoint", "teacher_decay", "untrustworthy_share", "untrustworthy_kind"),
    }
)
"""Constants that make another pool of teachers."""


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

    `against[i]` is the number of the choice that choice i is compared with; the first choice is
    the reference and stands for itself.
    """

    choices: list[Choice]
    against: list[int]
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
            f"{counted(r.n_test_tasks, 'test task')}"
        )

    def result(self, choice: int, setting: Setting) -> Result:
        """Return the records of one choice in one setting, the seeds inside."""
        return Result([one for one in self.stored[choice] if _setting(one.record) == setting])


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
    names = ["scenario", "net", "architectures", "method", "preset", "method_config", "learner"]
    names += ["calibration", "budget", "n_query", "n_test_tasks"]
    pool = record.pool.name if record.pool else None
    extra = [fields.get("calibration_config"), pool, versions_of(record)]
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
    against = [0] + [order.index(_compared(i, hub, steps)) for i in order[1:]]
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
