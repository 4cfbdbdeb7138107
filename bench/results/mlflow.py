"""Writes records, and cells under way, into an MLflow store. The only importer of mlflow."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.results.mlflow_store import EXPERIMENT, MARK, VERSION, Store, version_of
from bench.results.mlflow_view import (
    Point,
    artifacts,
    curve_points,
    data_sets,
    experiment_tags,
    final_tags,
    key_of,
    milliseconds,
    parameters,
    report_artifacts,
    run_name,
    summary_points,
    system_points,
    tags,
)
from bench.results.store import ARTIFACTS, StoredRecord

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

    from bench.results.record import Record

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds; MLflow's own values hold a run for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}.items():
    os.environ.setdefault(_name, _value)
BATCH = 1000  # MLflow's bound on the entries of one request
Place = tuple[str, str]
"""Suite and hash of a cell; the hash of a suite's own run is empty."""


def load() -> None:
    """Load what writing needs of mlflow, in the thread that calls this."""
    import mlflow.entities
    import mlflow.store.artifact.artifact_repository_registry
    import mlflow.tracking  # noqa: F401


class Tracker:
    """Writes one parent run per suite, one child run per cell.

    Its methods may raise whatever MLflow, the disk or the network raise.

    Raises:
        BenchError: the store cannot be opened, and why.
    """

    def __init__(self, store: Store) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It logs the tracebacks of errors that it raises, and who writes says them in a line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        store.runs.mkdir(parents=True, exist_ok=True)
        self.store = store
        self._parents: dict[str, Run] = {}
        try:
            with store.alone():
                self.client, self.experiment = store.opened(self._open)
        except Exception as error:
            raise BenchError(store.cannot_be_opened(error)) from error

    def _open(self, uri: str) -> tuple[Any, str]:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        location = (self.store.runs.resolve() / ARTIFACTS).as_uri()
        if found is None:
            for mark in self.store.runs.glob(f"*/*/{MARK}"):
                mark.unlink()
            own = None if self.store.is_server else location
            return client, client.create_experiment(EXPERIMENT, own, experiment_tags())
        self.store.keep_artifacts(found.artifact_location, location)
        if found.lifecycle_stage == "deleted":  # in MLflow's page; its runs come back with it
            client.restore_experiment(found.experiment_id)
        for key, value in experiment_tags().items():
            if found.tags.get(key) != value:
                client.set_experiment_tag(found.experiment_id, key, value)
        return client, found.experiment_id

    def runs(self, condition: str) -> list[Run]:
        """Return this folder's runs that meet a condition of MLflow."""
        condition += self.store.folder_condition()
        search = functools.partial(self.client.search_runs, [self.experiment], condition)
        page = search(max_results=BATCH)
        found = list(page)
        while page.token:
            page = search(max_results=BATCH, page_token=page.token)
            found += page
        return found

    def cells(self) -> dict[Place, list[Run]]:
        """Return all runs of cells, by suite and hash."""
        found: dict[Place, list[Run]] = {}
        for run in self.runs("tags.kind = 'cell'"):
            found.setdefault(_place(run), []).append(run)
        return found

    def ingest(self, stored: StoredRecord, known: Mapping[Place, list[Run]] | None = None) -> bool:
        """Write one record unless the store holds it; an older version of it is replaced.

        Args:
            stored: the record.
            known: `cells()`, where many records are written.

        Returns:
            Whether anything was written.
        """
        record, version = stored.record, version_of(stored)
        with self.store.alone():
            is_marked = not self.store.pending([stored])
            if known is None and is_marked:
                return False
            runs = (known or {}).get((record.suite, record.cell_hash), [])
            written = not any(_shows(run, version) for run in runs)
            if written and (known is None or is_marked):  # another wrote it since `known`
                runs = self._runs_of(record)
                written = not any(_shows(run, version) for run in runs)
            if written:
                self._write(stored, runs)
            if not is_marked:
                self.store.mark(stored)
        return written

    def begin(self, record: Record, started: float) -> tuple[str, list[Point]]:
        """Show a cell that has begun as a run under way.

        Args:
            record: what is known of it, as `begun` gives it.
            started: when, in seconds since 1970.

        Returns:
            The run's id, and what it shows already: that of a process that was killed is taken up.
        """
        with self.store.alone():
            at = int(1000 * started)
            taken = next((run for run in self._runs_of(record) if _is_open(run)), None)
            if taken is None:
                new = self._create(record, at, {}).info.run_id
                self.log(new, [], params=parameters(record))
                return new, []
            self.parent(record.suite, at)
            self.client.update_run(taken.info.run_id, status="RUNNING")
            return taken.info.run_id, self._points(taken)

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        tags: Mapping[str, str] = MappingProxyType({}),
        params: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log points in as few requests as MLflow allows; the last has the tags and parameters."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*point) for point in points]
        own = [RunTag(key, value) for key, value in tags.items()]
        values = [Param(key, value) for key, value in sorted(params.items())]
        last = max(0, len(metrics) - (BATCH - len(own) - len(values)))
        for start in range(0, last, BATCH):
            self.client.log_batch(run_id, metrics[start : min(start + BATCH, last)])
        self.client.log_batch(run_id, metrics[last:], values, own)

    def interrupt(self, run_id: str) -> None:
        """Close the run of a cell that was stopped on request."""
        self.client.set_terminated(run_id, "KILLED")

    def close_abandoned(self, running: Iterable[Place]) -> None:
        """Close the runs that a process which is gone left RUNNING.

        Args:
            running: suite and hash of the cells under way.
        """
        cells = set(running)
        alive = cells | {(suite, "") for suite, _ in cells}
        with self.store.alone():
            for run in self.runs("attributes.status = 'RUNNING'"):
                if "suite" in run.data.tags and _place(run) not in alive:
                    last = max((one.timestamp for one in self._points(run)), default=0)
                    end = max(last, run.info.start_time)
                    self.client.set_terminated(run.info.run_id, "KILLED", end)

    def close_suite(self, suite: str, stored: Iterable[StoredRecord]) -> None:
        """Give a suite's run the time from the start of its first cell to the end of its last."""
        records = [one.record for one in stored if one.record.suite == suite]
        if records:
            with self.store.alone():
                run = self.parent(suite, min(milliseconds(one.started) for one in records))
                end = max(milliseconds(one.ended) for one in records)
                if run.info.end_time != end or run.info.status != "FINISHED":
                    self.client.set_terminated(run.info.run_id, "FINISHED", end)

    def attach_report(self, suite: str, folder: Path) -> None:
        """Attach a rendered report, page, tables and figures, to the suite's parent run."""
        with self.store.alone():
            parent = self.parent(suite)
        self._attach(parent, report_artifacts(folder))

    def _runs_of(self, record: Record) -> list[Run]:
        return self.runs(
            f"tags.kind = 'cell' and tags.cell_hash = '{record.cell_hash}' "
            f"and tags.suite = '{record.suite}'"
        )

    def _write(self, stored: StoredRecord, runs: Sequence[Run]) -> None:
        record = stored.record
        wanted = parameters(record).items()
        kept = next((r for r in runs if _is_open(r) and r.data.params.items() <= wanted), None)
        for run in runs:
            if run is not kept:
                self.client.delete_run(run.info.run_id)
        points = [*summary_points(record), *curve_points(stored), *system_points(stored)]
        final = final_tags(record) | {VERSION: version_of(stored)}
        run = kept or self._create(record, milliseconds(record.started), final)
        shown = set(map(key_of, self._points(kept))) if kept else set()
        points = [point for point in points if key_of(point) not in shown]
        self.log(run.info.run_id, points, final if kept else {}, parameters(record))
        self.client.log_inputs(run.info.run_id, _inputs(record))
        self._attach(run, artifacts(stored.folder))
        status = "FAILED" if record.status == "failed" else "FINISHED"
        self.client.set_terminated(run.info.run_id, status, milliseconds(record.ended))

    def _create(self, record: Record, started: int, final: dict[str, str]) -> Run:
        parent = self.parent(record.suite, started)
        own = tags(record) | {"mlflow.parentRunId": parent.info.run_id} | self.store.folder_tags()
        return self.client.create_run(self.experiment, started, own | final, run_name(record))

    def parent(self, suite: str, started: int | None = None) -> Run:
        """Return the run of a suite, made where there is none."""
        if suite not in self._parents:
            found = self.runs(f"tags.suite = '{suite}' and tags.kind = 'suite'")
            own = {"suite": suite, "kind": "suite"} | self.store.folder_tags()
            self._parents[suite] = (
                found[0] if found else self.client.create_run(self.experiment, started, own, suite)
            )
        return self._parents[suite]

    def _points(self, run: Run) -> list[Point]:
        """Return all points that a run shows."""
        return [
            Point(one.key, one.value, one.timestamp, one.step)
            for name in run.data.metrics
            for one in self.client.get_metric_history(run.info.run_id, name)
        ]

    def _attach(self, run: Run, files: Iterable[tuple[Path, str | None]]) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(str(run.info.artifact_uri), self.store.uri)
        for path, folder in files:
            repository.log_artifact(str(path), folder)


def _place(run: Run) -> Place:
    return run.data.tags["suite"], run.data.tags.get("cell_hash", "")


def _is_open(run: Run) -> bool:
    """Tell whether a run waits for its record, or for the rest of it."""
    return run.info.status not in ("FINISHED", "FAILED")


def _shows(run: Run, version: str) -> bool:
    return run.data.tags.get(VERSION) == version and not _is_open(run)


def _inputs(record: Record) -> list[DatasetInput]:
    """Return a cell's data sets as MLflow knows them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(name, digest[:36], "purer-bench", source),
            [InputTag("mlflow.data.context", use)],
        )
        for name, digest, source, use in data_sets(record)
    ]
