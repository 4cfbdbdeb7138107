"""MLflow: a view of the records, written by one process only. The only importer of mlflow."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.leases import waiting
from bench.results.files import file_sha256, read_parquet, write_text
from bench.results.store import ARTIFACTS, CURVE, DONE, SIMILARITY, TASKS, StoredRecord

if TYPE_CHECKING:
    from bench.results.record import Record

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
MARK = ".ingested"
EXPERIMENT = "purer-bench"
MAX_METRICS = 1000
"""MLflow's bound on the metrics of one batch."""


def store_uri(runs: Path) -> str:
    """Return the absolute sqlite address of the store of a runs folder."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def ui_command(runs: Path) -> str:
    """Return the command that shows the store, with the mlflow of this environment."""
    program = Path(sys.executable).with_name("mlflow")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return f"{program} ui --backend-store-uri {store_uri(runs)} --workers 1"


def pending(runs: Path, stored: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Return the records that the store does not hold yet; needs no mlflow."""
    if not (runs / "mlflow.db").exists():
        return list(stored)
    return [s for s in stored if _mark(s) != _read_mark(s)]


def _mark(stored: StoredRecord) -> str:
    path = stored.folder / DONE
    return file_sha256(path if path.exists() else stored.folder / "record.json")


def _read_mark(stored: StoredRecord) -> str | None:
    path = stored.folder / MARK
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


class Tracker:
    """Writes records into the store: one parent run a suite, one child run a cell.

    One process writes at a time: a fresh store does not survive two that create it together.
    """

    def __init__(self, runs: Path) -> None:
        from mlflow.tracking import MlflowClient

        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        runs.mkdir(parents=True, exist_ok=True)
        self.runs = runs
        with self._alone():
            self.client = MlflowClient(tracking_uri=store_uri(runs))
            self.experiment = self._experiment()
            self._close_abandoned()

    def _alone(self) -> AbstractContextManager[object]:
        """Keep other processes from writing during the block."""
        return waiting(self.runs / ".mlflow.lease", "the MLflow store")

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            if found.lifecycle_stage == "deleted":  # in MLflow's page; its runs come back with it
                self.client.restore_experiment(found.experiment_id)
            return found.experiment_id
        for mark in self.runs.glob(f"*/*/{MARK}"):  # a fresh store holds nothing
            mark.unlink()
        location = (self.runs.resolve() / ARTIFACTS).as_uri()
        return self.client.create_experiment(EXPERIMENT, artifact_location=location)

    def _close_abandoned(self) -> None:
        """Close the runs that a killed process left RUNNING."""
        for run in self._search("attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, status="KILLED")

    def _search(self, condition: str) -> list[Any]:
        return list(self.client.search_runs([self.experiment], condition, max_results=5000))

    def ingest(self, stored: StoredRecord) -> None:
        """Write one record that is not written yet; an older version of the cell is replaced."""
        with self._alone():
            if pending(self.runs, [stored]):
                self._write(stored)

    def _write(self, stored: StoredRecord) -> None:
        record = stored.record
        parent = self._parent(record.suite)
        same = f"tags.cell_hash = '{record.cell_hash}' and tags.`mlflow.parentRunId` = '{parent}'"
        for run in self._search(same):
            self.client.delete_run(run.info.run_id)
        run_id = self._create(stored, parent)
        self._log_metrics(run_id, stored)
        self._log_artifacts(run_id, stored.folder)
        ended = int(datetime.fromisoformat(record.ended).timestamp() * 1000)
        status = "FAILED" if record.status == "failed" else "FINISHED"
        self.client.set_terminated(run_id, status=status, end_time=ended)
        write_text(stored.folder / MARK, _mark(stored) + "\n")

    def _parent(self, suite: str) -> str:
        for run in self._search(f"tags.suite = '{suite}' and tags.kind = 'suite'"):
            return run.info.run_id
        tags = {"suite": suite, "kind": "suite"}
        run = self.client.create_run(self.experiment, run_name=suite, tags=tags)
        self.client.set_terminated(run.info.run_id)
        return run.info.run_id

    def attach_report(self, suite: str, folder: Path) -> None:
        """Attach a rendered report, page, tables and figures, to the suite's parent run."""
        with self._alone():
            parent = self._parent(suite)
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inner.parts):
                place = (Path("report") / inner).parent.as_posix()
                self.client.log_artifact(parent, str(path), place)

    def _create(self, stored: StoredRecord, parent: str) -> str:
        from mlflow.entities import Param

        record = stored.record
        tags = {
            "mlflow.parentRunId": parent,
            "kind": "cell",
            "suite": record.suite,
            "scenario": record.scenario,
            "dataset": "+".join(record.tested),
            "method": record.method,
            "learner": record.learner,
            "calibration": record.calibration,
            "knowledge": record.knowledge,
            "inference": record.inference,
            "protocol": record.protocol_label,
            "status": record.status,
            "cell_hash": record.cell_hash,
            "commit": record.environment.git_commit or "unknown",
            "device": record.device.name,
        }
        if record.reason:
            tags["reason"] = record.reason[:5000]
        shots = f"{record.n_way}w{record.k_shot}s"
        preset = "" if record.preset == "released" else f" ({record.preset})"
        calibration = "" if record.calibration == "none" else f"+{record.calibration}"
        learner = record.learner + calibration
        name = f"{record.method}{preset} {learner} {tags['dataset']} {shots} s{record.seed}"
        run = self.client.create_run(
            self.experiment,
            start_time=int(datetime.fromisoformat(record.started).timestamp() * 1000),
            tags=tags,
            run_name=name,
        )
        params = [Param(key, value) for key, value in sorted(parameters(record).items())]
        self.client.log_batch(run.info.run_id, params=params)
        return run.info.run_id

    def _log_metrics(self, run_id: str, stored: StoredRecord) -> None:
        from mlflow.entities import Metric

        record = stored.record
        at = int(datetime.fromisoformat(record.ended).timestamp() * 1000)
        metrics = [Metric(name, value, at, 0) for name, value in summary_metrics(record).items()]
        system = stored.folder / "system.parquet"
        if stored.has(CURVE):
            columns = read_parquet(stored.folder / CURVE)
            rows = zip(columns["name"], columns["value"], columns["step"], strict=True)
            metrics += [Metric(f"curve/{n}", float(v), at, int(s)) for n, v, s in rows]
        if system.exists():
            columns = read_parquet(system)
            start = int(datetime.fromisoformat(record.started).timestamp() * 1000)
            for name in sorted(set(columns) - {"seconds"}):
                pairs = zip(columns["seconds"], columns[name], strict=True)
                metrics += [
                    Metric(f"system/{name}", float(v), start + int(1000 * s), i)
                    for i, (s, v) in enumerate(pairs)
                ]
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])

    def _log_artifacts(self, run_id: str, folder: Path) -> None:
        for name in ("record.json", "config.json", TASKS, SIMILARITY, "log.txt"):
            if (folder / name).exists():
                self.client.log_artifact(run_id, str(folder / name))
        for path in sorted(folder.glob("images/*.png")):
            self.client.log_artifact(run_id, str(path), "images")


def parameters(record: Record) -> dict[str, str]:
    """Return the parameters of a cell by name: what tells cells apart in a comparison.

    Constants of the protocol and counts of the budget are in their names, and in full in the
    artifacts `config.json` and `record.json`.
    """
    shown = {
        "method": record.method,
        "preset": record.preset,
        "learner": record.learner,
        "calibration": record.calibration,
        "scenario": record.scenario,
        "dataset": "+".join(record.tested),
        "teachers": "+".join(record.architectures),
        "n_way": record.n_way,
        "k_shot": record.k_shot,
        "seed": record.seed,
        "protocol": record.protocol_label,
        "meta_iterations": record.budget.get("meta_iterations"),
        "n_test_tasks": record.n_test_tasks,
    }
    if record.variant:
        shown["variant"] = record.variant
    shown |= {f"{record.method}.{key}": value for key, value in record.method_config.items()}
    shown |= {f"{record.calibration}.{k}": v for k, v in record.calibration_config.items()}
    return {key: str(value)[:6000] for key, value in shown.items()}


METRICS: dict[str, Callable[[Record], float | None]] = {
    "accuracy": lambda r: r.accuracy.mean if r.accuracy else None,
    "accuracy_ci95": lambda r: r.accuracy.ci95 if r.accuracy else None,
    "fit_seconds": lambda r: r.timing.fit_s,
    "fit_tasks_per_second": lambda r: r.timing.train_tasks_per_s,
    "pseudo_images_per_second": lambda r: r.timing.pseudo_images_per_s,
    "test_tasks_per_second": lambda r: r.timing.test_tasks_per_s,
    "peak_memory_bytes": lambda r: r.timing.peak_memory_bytes,
    "parameters": lambda r: r.cost.params,
    "macs_per_query_image": lambda r: r.cost.macs_per_query_image,
    "pool_accuracy": lambda r: r.pool.mean_accuracy if r.pool else None,
}
"""What a cell's row shows; the rest is in its record."""


def summary_metrics(record: Record) -> dict[str, float]:
    """Return accuracy, interval, throughput and cost; what was not measured is absent."""
    found = {name: read(record) for name, read in METRICS.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def open_tracker(runs: Path) -> Tracker:
    """Return a tracker of a runs folder, or say in one line why there is none."""
    try:
        return Tracker(runs)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BenchError(
            f"MLflow store {store_uri(runs)} cannot be opened ({first}); "
            "delete mlflow.db and run bench ingest"
        ) from error
