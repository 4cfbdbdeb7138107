"""Named protocols and budgets: the constants that must agree before numbers are compared.

`ProtocolConstants` says what each setting means; docs/protocols.md has the table of hazards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from bench import registry
from bench.contract import Budget, ProtocolConstants
from bench.errors import BenchError, unknown_name

T = TypeVar("T", Budget, ProtocolConstants)

_CVPR23 = ProtocolConstants(
    name="cvpr23",
    pool="disjoint",
    teacher_checkpoint="best",
    selection="val",
    task_list="frozen",
    teacher_weights="uniform",
    label_order="aligned",
    bn="transductive",
    pseudo_split="random",
    initialisation="auto",
    inner_lr=0.01,
    inner_steps_train=1,
    inner_steps_test=1,
    first_order=False,
    outer_lr=1e-3,
    tasks_per_meta_batch=4,
    pixel_lr=0.25,
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _CVPR23,
        _CVPR23.model_copy(
            update={
                "name": "cvpr23_as_published",
                "selection": "test_max",
                "task_list": "redrawn",
                "teacher_weights": "cumulative",
                "teacher_checkpoint": "last",
            }
        ),
        _CVPR23.model_copy(
            update={
                "name": "pool100",
                "pool": "overlapping",
                "n_teachers": 100,
                "teacher_decay": 1.0,
                "teachers_per_iteration": 13,
                "pseudo_split": "fixed",
                "initialisation": "random",
                "inner_steps_train": 5,
                "inner_steps_test": 10,
                "pixel_lr": 0.01,
            }
        ),
    )
}

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="micro",
            teacher_epochs=4,
            max_teachers=3,
            meta_iterations=30,
            oracle_iterations=60,
            validate_every=10,
            n_val_tasks=20,
        ),
        Budget(
            name="short",
            teacher_epochs=60,
            meta_iterations=400,
            oracle_iterations=1000,
            validate_every=50,
            n_val_tasks=100,
        ),
        Budget(
            name="long",
            teacher_epochs=60,
            meta_iterations=6_000,
            oracle_iterations=6_000,
            validate_every=500,
            n_val_tasks=300,
        ),
        Budget(
            name="paper",
            teacher_epochs=60,
            meta_iterations=60_000,
            oracle_iterations=60_000,
            validate_every=500,
            n_val_tasks=600,
        ),
    )
}


def protocol_names() -> list[str]:
    """Return the names of all protocols: those of this package, and registered ones."""
    return _names("protocol", PROTOCOLS)


def budget_names() -> list[str]:
    """Return the names of all budgets, likewise."""
    return _names("budget", BUDGETS)


def protocol(name: str) -> ProtocolConstants:
    """Return the named protocol; an unknown name is an error with near matches."""
    return _named("protocol", PROTOCOLS, ProtocolConstants, name)


def budget(name: str) -> Budget:
    """Return the named budget; an unknown name is an error with near matches."""
    return _named("budget", BUDGETS, Budget, name)


def _names(kind: registry.Kind, own: Mapping[str, Any]) -> list[str]:
    registered = registry.names(kind)
    if taken := sorted(own.keys() & set(registered)):
        offered_by = " ".join(registry.distribution_of(kind, taken[0]))
        raise BenchError(
            f"{kind} '{taken[0]}' of {offered_by} has the name of one of this package; rename it"
        )
    return [*own, *registered]


def _named(kind: registry.Kind, own: Mapping[str, T], expected: type[T], name: str) -> T:
    if name in own:
        return own[name]
    if name not in _names(kind, own):
        raise unknown_name(kind, name, _names(kind, own))
    found = registry.load(kind, name)
    if not isinstance(found, expected) or found.name != name:
        raise BenchError(
            f"{kind} '{name}' ({registry.entry(kind, name).value}) is no {expected.__name__} of "
            "that name; let the entry point name one"
        )
    return found


def differences(constants: ProtocolConstants) -> dict[str, Any]:
    """Return the constants that differ from the named protocol's, by name; all of an unnamed."""
    known = constants.name in protocol_names()
    named = protocol(constants.name) if known else None
    values = constants.model_dump()
    del values["name"]
    return {k: v for k, v in values.items() if named is None or getattr(named, k) != v}
