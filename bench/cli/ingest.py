"""`bench ingest`, and how a run writes its records into the MLflow store."""

from __future__ import annotations

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
def ingest(runs: Path, rebuild: bool) -> None:
    """Write the records that are new into the MLflow store."""
    from bench.results.mlflow import open_tracker, pending, store_uri
    from bench.results.store import find_records

    stored = find_records(runs)
    if not stored:
        raise BenchError(f"no finished record below '{runs}'; run a suite first, or name --runs")
    if rebuild:
        (runs / "mlflow.db").unlink(missing_ok=True)
    todo = pending(runs, stored)
    tracker = open_tracker(runs) if todo else None
    for one in todo:
        tracker.ingest(one)
    for suite in sorted({one.record.suite for one in todo}):
        if (runs / suite / "report").is_dir():
            tracker.attach_report(suite, runs / suite / "report")
    click.echo(f"{len(todo)} of {len(stored)} records written to {store_uri(runs)}")


class MlflowView:
    """The MLflow store of a runs folder, opened when it is first needed.

    It shows what the records hold, so nothing that breaks it stops a run.
    """

    def __init__(self, runs: Path):
        self._runs = runs
        self._tracker: Any = None

    def open(self) -> None:
        """Open the store.

        Raises:
            BenchError: it cannot be opened.
        """
        from bench.results.mlflow import open_tracker

        self._tracker = self._tracker or open_tracker(self._runs)

    def ingest(self, stored: StoredRecord) -> None:
        """Write a record, or say that it could not be written."""
        self.open()
        try:
            self._tracker.ingest(stored)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            click.echo(
                f"MLflow store: {stored.record.cell_hash} was not written ({reason}); its record "
                f"is: bench ingest --runs {self._runs} tries again",
                err=True,
            )

    def close(self, suite: str, stored: Sequence[StoredRecord], report: Path | None) -> str:
        """Write what the store lacks, attach a suite's report, return the command that shows it."""
        from bench.results.mlflow import pending, ui_command

        for one in pending(self._runs, stored):
            self.ingest(one)
        if self._tracker is not None and report is not None:
            self._tracker.attach_report(suite, report)
        return ui_command(self._runs)
