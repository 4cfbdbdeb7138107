"""`bench ingest`, and how a run writes its records into the MLflow store."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import runs_option
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.results.store import StoredRecord


@click.command()
@runs_option
@click.option("--rebuild", is_flag=True, help="Start from an empty store.")
@click.pass_context
def ingest(context: click.Context, runs: Path, rebuild: bool) -> None:
    """Write the records that are new into the MLflow store; exit 1 if one could not be written."""
    from bench.results.find import find_records, reading_told
    from bench.results.mlflow import pending, store_uri

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        stored = find_records(runs, reading)
    if not stored:
        raise BenchError(f"no finished record below '{runs}'; run a suite first, or name --runs")
    if rebuild:
        (runs / "mlflow.db").unlink(missing_ok=True)
    todo = pending(runs, stored)
    view = MlflowView(runs)
    written = [one for one in todo if view.ingest(one)]
    for suite in sorted({one.record.suite for one in written}):
        view.attach_report(suite, runs / suite / "report")
    click.echo(f"{len(written)} of {len(stored)} records written to {store_uri(runs)}")
    if len(written) < len(todo):
        context.exit(1)


class MlflowView:
    """The MLflow store of a runs folder, opened when it is first needed.

    It shows what the records hold, so nothing that breaks it stops a run.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._tracker: Any = None

    def open(self) -> None:
        """Open the store.

        Raises:
            BenchError: it cannot be opened.
        """
        from bench.results.mlflow import open_tracker

        self._tracker = self._tracker or open_tracker(self._runs)

    def ingest(self, stored: StoredRecord) -> bool:
        """Write a record, or say that it could not be written; tell whether it was."""
        self.open()
        try:
            self._tracker.ingest(stored)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            click.echo(
                f"MLflow store: {stored.record.cell_hash} was not written ({reason}); its record "
                f"was, and bench ingest --runs {self._runs} tries again",
                err=True,
            )
            return False
        return True

    def attach_report(self, suite: str, folder: Path) -> None:
        """Attach a rendered report to its suite, where there is one and the store is open."""
        if self._tracker is not None and folder.is_dir():
            self._tracker.attach_report(suite, folder)

    def close(self, suite: str, stored: Sequence[StoredRecord], report: Path | None) -> str:
        """Write what the store lacks, attach a suite's report, return the command that shows it."""
        from bench.results.mlflow import pending, ui_command

        for one in pending(self._runs, stored):
            self.ingest(one)
        if report is not None:
            self.attach_report(suite, report)
        return ui_command(self._runs)
