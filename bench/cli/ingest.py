"""`bench ingest`: the records that the MLflow store lacks, written into it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import mlflow_option, runs_option
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.results.mlflow import Tracker
    from bench.results.store import StoredRecord

MOST_FAILURES = 3
"""Records that cannot be written before no more are tried: the store is away."""


@click.command()
@runs_option
@mlflow_option
@click.option("--rebuild", is_flag=True, help="Delete the store's file first.")
@click.pass_context
def ingest(context: click.Context, runs: Path, mlflow_uri: str | None, rebuild: bool) -> None:
    """Write the records that the MLflow store lacks; exit 1 if one could not be written.

    The store itself is asked what it holds. Runs that a process which is gone left open are closed.
    """
    from bench.execute.progress import under_way
    from bench.results.find import find_records, reading_told
    from bench.results.mlflow_store import Store

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        stored = find_records(runs, reading)
    if not stored:
        raise BenchError(f"no finished record below '{runs}'; run a suite first, or name --runs")
    store = Store(runs, mlflow_uri)
    if rebuild and store.database is None:
        raise BenchError(f"--rebuild deletes a file, and {store.shown} is none; leave it out")
    if rebuild:
        store.remove()
    from bench.results.mlflow import Tracker
    from bench.results.store import place_of

    tracker = Tracker(store)
    tracker.close_abandoned(place_of(folder) for folder, _ in under_way(runs))
    written, problem = write_all(tracker, stored)
    for suite in sorted({one.record.suite for one in stored} if written and not problem else ()):
        tracker.attach_report(suite, runs / suite / "report")
    click.echo(f"{written} of {len(stored)} records written to {store.shown}")
    if problem:
        click.echo(problem, err=True)
        context.exit(1)


def write_all(tracker: Tracker, stored: Sequence[StoredRecord]) -> tuple[int, str]:
    """Write the records that a store lacks, then the times of their suites.

    Returns:
        How many were written, and one line that says why not all were; empty if all were.
    """
    from bench.results.mlflow_rows import ingest_new

    written, reasons = 0, []
    try:
        todo = sorted(stored, key=lambda one: one.record.started)
        rest = ingest_new(tracker, todo)
        written += len(todo) - len(rest)
        known = tracker.cells() if rest else {}
        for one in rest:
            try:
                written += tracker.ingest(one, known)
            except Exception as error:
                reasons.append(tracker.store.reason(error))
                if len(reasons) == MOST_FAILURES:
                    break
        for suite in sorted({one.record.suite for one in stored} if not reasons else ()):
            tracker.close_suite(suite, stored)
    except Exception as error:
        reasons.append(tracker.store.reason(error))
    if not reasons:
        return written, ""
    return written, (
        f"MLflow store {tracker.store.shown}: not all was written ({reasons[0]}); the records are "
        f"kept, and {tracker.store.ingest_command} tries again"
    )
