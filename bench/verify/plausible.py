"""Checks of what every record says of itself before anything is computed from it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from bench.results.record import Record
from bench.verify.findings import Finding, refused

MOST = {"n_way": 10_000, "k_shot": 10_000, "n_query": 10_000, "n_test_tasks": 1_000_000}
"""Larger numbers are those of no data set, and would take the memory of a machine to check."""
MOST_QUERIES = 100_000_000
MOST_SEED = 2**63
NAME = re.compile(r"[\w.+:-]+")
FEW_TASKS = 200
DIRTY = "the checkout had uncommitted changes"


def plausible(record: Record) -> Iterator[Finding]:
    """Yield what no honest record says: shapes without tasks, names that hide, times that are none.

    If one of these is refused, nothing else is computed.
    """
    for name, most in MOST.items():
        if not 1 <= (value := getattr(record, name)) <= most:
            yield refused("shape", f"{name} is {value:.6g}, not a number from 1 to {most}")
            return
    if record.n_test_tasks * record.n_way * record.n_query > MOST_QUERIES:
        yield refused("shape", f"its tasks have more than {MOST_QUERIES} queries")
    if not 0 <= record.seed < MOST_SEED:
        yield refused("shape", "its seed is not a number from 0 to 2^63 - 1")
    yield from _names(record)
    yield from _times(record)


def _names(record: Record) -> Iterator[Finding]:
    named = [record.suite, record.method, record.preset, record.learner, record.calibration]
    named += [record.net, *record.architectures, *record.datasets, *record.test_datasets]
    for one in record.code.distributions if record.code else ():
        named += [one.name, one.version]
    if strange := [name for name in named if not NAME.fullmatch(name)]:
        yield refused("names", f"'{strange[0]}' is not a name: use letters, digits and . _ + : -")


def _times(record: Record) -> Iterator[Finding]:
    try:
        started, ended = map(datetime.datetime.fromisoformat, (record.started, record.ended))
        backwards = ended < started
    except (ValueError, TypeError):  # of which one has a time zone, and the other none
        text = f"'{record.started[:40]}' to '{record.ended[:40]}' are no times of ISO 8601"
        yield refused("rates", text)
        return
    if backwards:
        yield refused("rates", f"it ended ({record.ended}) before it started ({record.started})")


def warnings(record: Record) -> Iterator[Finding]:
    """Yield the warnings of a reader that a record lacks or should not have."""
    n = record.n_test_tasks
    wanted = {DIRTY: bool(record.environment.git_dirty), f"only {n} test tasks": n < FEW_TASKS}
    for text, is_so in wanted.items():
        if is_so != (text in record.warnings):
            yield refused("warnings", f"its warnings {'lack' if is_so else 'have'}: {text}")
