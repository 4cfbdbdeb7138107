"""Captions of tables, complete enough to quote a table alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bench.errors import counted
from bench.results.record import Record
from bench.results.store import StoredRecord
from bench.stats import minimal_detectable_difference
from reports.rows.groups import Group
from reports.rows.results import best_first, paired

_ONE = re.compile(r"\b1 (core|thread)s\b")


CONSTANTS_ABOVE = "Protocol and budget: see the accuracy table."
"""What the captions of a group's other tables say of the constants."""


def protocol_sentence(group: Group) -> str:
    """Name the protocol, its pool and its main constants."""
    record = group.first
    p = record.protocol
    steps = f"{p['inner_steps_train']} in training, {p['inner_steps_test']} at test"
    return (
        f"Protocol {record.protocol_label}: {pool_phrase(group)}{_training(group)}; inner steps "
        f"{steps}, rate {p['inner_lr']:g}; BN {p['bn']}{_own_statistics(group)}; selection "
        f"{p['selection']}; test tasks {p['task_list']}{_unequal(p)}."
    )


def _unequal(protocol: dict[str, Any]) -> str:
    """Name the numbers of queries per class where they are not equal."""
    unequal = protocol.get("query_counts") == "dirichlet"
    return ", with unequal numbers of queries per class (Dirichlet)" * unequal


def _own_statistics(group: Group) -> str:
    """Name the rows that do not follow the protocol's batch norm mode, if there are any."""
    own = any(row.knowledge == "features" for row in group.rows)
    return " (ensembles and distilled students keep stored statistics unless set otherwise)" * own


def _training(group: Group) -> str:
    """Describe the training of the teachers."""
    record = group.first
    if record.protocol.get("teachers") == "untrained":
        return "untrained teachers of random weights, so accuracies compare nothing"
    pools = [one.record.pool for one in group.stored if one.record.pool]
    imported = sorted({pool.name for pool in pools if pool.name})
    if imported:
        return f"imported pool {', '.join(imported)}"
    epochs = f"{counted(record.budget['teacher_epochs'], 'epoch')} per teacher"
    own = record.budget.get("teacher_epochs_of") or {}
    for other in sorted({count for name, count in own.items() if name in record.architectures}):
        names = sorted(name for name, count in own.items() if count == other)
        epochs += f", {other} per {' or '.join(n for n in names if n in record.architectures)}"
    return f"{epochs} ({record.protocol['teacher_checkpoint']} checkpoint)"


def pool_phrase(group: Group) -> str:
    """Return the number and mean accuracy of the teachers per data set, over the seeds."""
    pools: dict[str, dict[str, tuple[int, float]]] = {}
    for one in group.stored:
        if one.record.pool:
            name = "+".join(one.record.datasets)
            values = one.record.pool.n, one.record.pool.mean_accuracy
            pools.setdefault(name, {})[one.record.pool.sha256] = values
    phrases = []
    for name, found in sorted(pools.items()):
        sizes = "/".join(str(n) for n in sorted({n for n, _ in found.values()}))
        accuracy = 100 * np.mean([accuracy for _, accuracy in found.values()])
        teachers = "teacher" if sizes == "1" else "teachers"
        phrases.append(f"{name} {sizes} {teachers}, mean held-out accuracy {accuracy:.1f} %; ")
    return "".join(phrases)


def budget_sentence(group: Group) -> str:
    """Name the budget's counts."""
    b = group.first.budget
    return (
        f"Budget {b['name']}: {counted(b['meta_iterations'], 'meta-iteration')} (oracles "
        f"{b['oracle_iterations']}), validated every {b['validate_every']} on "
        f"{counted(b['n_val_tasks'], 'task')}."
    )


def seeds_sentence(group: Group) -> str:
    """Name the seeds and, if there are several, how they are summarised."""
    seeds = sorted({one.record.seed for one in group.stored})
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    unlike = len({result.seeds for result in group.results.values() if result.done}) > 1
    return (
        f"Seeds {', '.join(map(str, seeds))}: mean of the seeds' means; ± is the mean of their "
        "task intervals, 'over seeds' the standard deviation of their means."
        + " Rows with different seeds compare on the seeds that both have, for bold and † too, and "
        "not by their means." * unlike
    )


def detectable_difference(group: Group) -> float | None:
    """Return the largest difference that the paired tests of a group might miss, a fraction.

    The largest over its settings of the minimal detectable difference from the leader of a row's
    kind (α = 5 %, power 80 %), over the rows that met the same tasks; None where nothing is paired.
    """
    found = []
    for results in [one for s in group.settings for one in group.rivals(s)]:
        best = results[best_first(results)[0]]
        found += [
            minimal_detectable_difference(pair.a.tasks, pair.b.tasks)
            for result in results.values()
            if result is not best and (pair := paired(best, result)).reason is None
        ]
    return max(found, default=None)


def detectable_sentence(group: Group) -> str:
    """State which difference from the best the paired tests might miss."""
    found = detectable_difference(group)
    if found is None:
        return ""
    return (
        f"A true difference from the best of {100 * found:.1f} points would be found with 80 % "
        "power (α = 5 %, before Holm). "
    )


def origin_sentence(stored: Sequence[StoredRecord]) -> str:
    """State device, dates and commits of the records."""
    records = [one.record for one in stored]
    devices = "; ".join(sorted({device_name(record) for record in records}))
    days = sorted({record.started[:10] for record in records})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{devices}; {span}; {_commits(records)}."


def device_name(record: Record) -> str:
    """Return the device as shown: with its threads where it is a CPU."""
    device = record.device
    threads = f", {device.threads} threads" if device.type == "cpu" else ""
    return _ONE.sub(r"1 \1", f"{device.type} ({device.name}{threads})")


def _commits(records: Iterable[Record]) -> str:
    environments = [record.environment for record in records]
    names = sorted(
        {
            e.git_commit[:10] + (" (dirty)" if e.git_dirty else "")
            for e in environments
            if e.git_commit
        }
    )
    unknown = any(e.git_commit is None for e in environments)
    return "commit " + ", ".join(names + ["unknown"] * unknown)
