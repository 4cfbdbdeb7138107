"""Why a row is near chance, or where it started: to know before blaming the method."""

from __future__ import annotations

import numpy as np

from bench.errors import counted
from bench.results.record import Record
from reports.claims.claims import PUBLISHED_META_ITERATIONS
from reports.rows.groups import Group
from reports.rows.results import Result, Row, Setting, paired

NEAR = 0.02
"""A result is near chance where its interval reaches down to so little above it, a fraction."""
ADAPTS = ("maml", "anil")
"""Learners that predict with weights changed by gradient steps on the support images."""


def chance_note(result: Result) -> str | None:
    """Return the footnote of a result whose 95 % interval over tasks reaches chance, or nearly.

    Args:
        result: with at least one finished record.

    Returns:
        How near, and what the records say of the reason; None for a result that is clearly above.
    """
    record = result.done[0].record
    chance = 1 / record.n_way
    if result.mean - result.ci95 > chance + NEAR:
        return None
    reason = _reason(record)
    where = f"within {100 * NEAR:g} points of chance ({100 * chance:.3g} %)"
    return f"{where}: {reason}" if reason else where


def start_note(group: Group, row: Row, setting: Setting) -> str | None:
    """Return the footnote of a meta-trained result that is that of its starting weights.

    None unless another row of the same learner, without meta-training, has the same accuracy in
    every test task.
    """
    result = group.results[row, setting]
    if not _is_trained(result):
        return None
    for (other, where), found in group.results.items():
        if where == setting and other.head == row.head and found.done and not _is_trained(found):
            pair = paired(result, found)
            if pair.reason is None and np.array_equal(pair.a.tasks, pair.b.tasks):
                return (
                    f"as {other.name} in every task: of its meta-training, validation kept the "
                    "weights that it started from"
                )
    return None


def _is_trained(result: Result) -> bool:
    return result.done[0].record.timing.train_tasks_per_s is not None


def _reason(record: Record) -> str:
    """Return why, as far as the record knows."""
    if record.protocol.get("teachers") == "untrained":
        return "the teachers are untrained"
    if record.timing.train_tasks_per_s is not None:
        return _few(record)
    if record.learner in ADAPTS:
        steps = record.protocol.get("inner_steps_test", 1)
        return f"{counted(steps, 'gradient step')} on weights without meta-training"
    return ""


def _few(record: Record) -> str:
    """Name the meta-iterations of a fit, beside the published ones of PURER."""
    iterations = meta_iterations(record)
    if record.method != "purer":
        return counted(iterations, "meta-iteration", ",")
    verb = "is" if iterations == 1 else "are"
    share = 100 * iterations / PUBLISHED_META_ITERATIONS
    return (
        f"{counted(iterations, 'meta-iteration', ',')} {verb} {share:.2g} % of the published "
        f"{PUBLISHED_META_ITERATIONS:,}"
    )


def meta_iterations(record: Record) -> int:
    """Return the meta-iterations of a record's fit: the method's own, or the budget's."""
    config = record.method_config
    name = "oracle_iterations" if record.knowledge == "real_data" else "meta_iterations"
    times = config.get("meta_iterations_factor") or 1
    return int(config.get("meta_iterations") or record.budget[name] * times)
