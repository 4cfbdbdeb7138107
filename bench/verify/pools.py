"""Checks of a record's teachers: what it says of all of them together, and their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bench.results.files import content_hash
from bench.results.record import PoolSummary, Record
from bench.verify import known
from bench.verify.findings import Finding, doubt, refused

NEAR = 1e-9


def pools(record: Record) -> Iterator[Finding]:
    """Yield what is wrong with the pool and the fit of a finished cell."""
    if record.fit is None:
        yield refused("pool", "it is done and names no fit")
    own = known.settings("method", record.method)
    if record.pool is None:
        if own and own["uses_pool"]:
            yield refused("pool", f"{record.method} uses teachers, and the record has none")
        return
    try:
        trained = not record.protocol.get("untrustworthy_share")
        yield from _together(record.pool, trained)
        yield from _classes(record, record.pool)
    except (KeyError, TypeError, AttributeError):
        yield refused("pool", "a teacher lacks its accuracy, architecture, classes or digest")


def _together(pool: PoolSummary, trained: bool) -> Iterator[Finding]:
    teachers = pool.teachers
    if pool.n != len(teachers) or not teachers:
        yield refused("pool", f"it counts {pool.n} teachers and describes {len(teachers)}")
        return
    accuracies = [one["accuracy"] for one in teachers]
    if not all(0 <= value <= 1 for value in accuracies):
        yield refused("pool", "the accuracy of a teacher is not within [0, 1]")
    if not abs(sum(accuracies) / len(teachers) - pool.mean_accuracy) <= NEAR:
        mean = sum(accuracies) / len(teachers)
        text = f"its teachers' mean accuracy is {pool.mean_accuracy:.6g} in the record"
        yield refused("pool", f"{text}, {mean:.6g} by theirs")
    if pool.architectures != Counter(one["architecture"] for one in teachers):
        yield refused("pool", "it counts other architectures than its teachers have")
    of_teachers = pool.name is None and trained  # else it follows from that of another pool
    if of_teachers and pool.sha256 != content_hash([one["sha256"] for one in teachers]):
        yield refused("pool", "its digest is not that of its teachers")


def _classes(record: Record, pool: PoolSummary) -> Iterator[Finding]:
    """Compare the classes of teachers with those held out; of imported ones by name alone."""
    held = {name: known.held_out(name) for name in record.datasets}
    for teacher in pool.teachers:
        home = [teacher["dataset"]] if "dataset" in teacher else record.datasets
        for name in home:
            for split, classes in held.get(name, {}).items():
                if seen := sorted(classes & set(teacher["classes"])):
                    text = f"teacher {teacher['name']} was trained on {seen[0]}"
                    say = doubt if pool.name else refused
                    yield say("pool", f"{text}, of the {split} split of {name}")
                    return
