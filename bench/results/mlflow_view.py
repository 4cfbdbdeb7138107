"""What MLflow shows of a cell: names, tags, parameters, metrics, points of curves, artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.results.curve_file import Thinning
from bench.results.files import canonical_json, read_parquet
from bench.results.record import Record
from bench.results.store import CONFIG, CURVE, RECORD, SIMILARITY, TASKS, StoredRecord

CURVE_PREFIX, SYSTEM_PREFIX = "curve/", "system/"
KIND_TAG = "mlflow.experimentKind"
VIEW = "cells"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
FILES = (RECORD, CONFIG, TASKS, SIMILARITY, CURVE, "log.txt")
"""The files of a cell that become artifacts, beside its images."""


class Point(NamedTuple):
    """A value of a metric: when it was measured (ms since 1970), and at which step."""

    name: str
    value: float
    timestamp: int
    step: int = 0


def experiment_tags() -> dict[str, str]:
    """Return the tags of the experiment, which say how MLflow's page shows it.

    It is one of *Model training*, not of language models; and it has a shared view: all cells, the
    most accurate first, with accuracy, interval and throughput in the first columns.
    """
    columns = [
        *(f"metrics.`{name}`" for name in FIRST_METRICS),
        *("attributes.`Duration`", "attributes.`Dataset`", "params.`k_shot`"),
    ]
    view = {
        "searchFilter": "tags.kind = 'cell'",
        "orderByKey": "metrics.`accuracy`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {"attributes.`Dataset`": 150},
    }
    return {KIND_TAG: "custom_model_development", VIEW_TAG: canonical_json(view)}


def page(server: str, experiment: str) -> str:
    """Return the address of the experiment's page with the view of its cells."""
    view = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{server}/#/experiments/{experiment}/runs?{view}"


def begun(config: Mapping[str, Any], suite: str, cell_hash: str) -> Record:
    """Return the part of a record that is known when a cell begins.

    Args:
        config: what `config.json` of the cell holds.
        suite: its suite.
        cell_hash: its hash.
    """
    return Record.model_construct(**{**config, "suite": suite, "cell_hash": cell_hash})


def run_name(record: Record) -> str:
    """Return the name of a cell's run."""
    shots = f"{record.n_way}w{record.k_shot}s"
    preset = "" if record.preset == "released" else f" ({record.preset})"
    calibration = "" if record.calibration == "none" else f"+{record.calibration}"
    learner = record.learner + calibration
    return f"{record.method}{preset} {learner} {_tested(record)} {shots} s{record.seed}"


def tags(record: Record) -> dict[str, str]:
    """Return the tags that a cell's run has from the beginning."""
    return {
        "kind": "cell",
        "suite": record.suite,
        "scenario": record.scenario,
        "dataset": _tested(record),
        "method": record.method,
        "learner": record.learner,
        "calibration": record.calibration,
        "protocol": record.protocol_label,
        "cell_hash": record.cell_hash,
    }


def final_tags(record: Record) -> dict[str, str]:
    """Return the tags that a finished cell's run has in addition."""
    found = {
        "status": record.status,
        "knowledge": record.knowledge,
        "inference": record.inference,
        "commit": record.environment.git_commit or "unknown",
        "device": record.device.name,
    }
    return found | ({"reason": record.reason[:5000]} if record.reason else {})


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
        "dataset": _tested(record),
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
    "fit_steps_per_second": lambda r: r.timing.meta_iterations_per_s,
    "fit_tasks_per_second": lambda r: r.timing.train_tasks_per_s,
    "pseudo_images_per_second": lambda r: r.timing.pseudo_images_per_s,
    "test_tasks_per_second": lambda r: r.timing.test_tasks_per_s,
    "peak_memory_bytes": lambda r: r.timing.peak_memory_bytes,
    "parameters": lambda r: r.cost.params,
    "macs_per_query_image": lambda r: r.cost.macs_per_query_image,
    "pool_accuracy": lambda r: r.pool.mean_accuracy if r.pool else None,
}
"""What a cell's row shows; the rest is in its record."""
FIRST_METRICS = ("accuracy", "accuracy_ci95", "test_tasks_per_second", "fit_steps_per_second")
"""The columns that MLflow's page shows first."""


def summary_points(record: Record) -> Iterator[Point]:
    """Yield accuracy, interval, throughput and cost; what was not measured is absent."""
    at = milliseconds(record.ended)
    for name, read in METRICS.items():
        if (value := read(record)) is not None:
            yield Point(name, float(value), at)


def curve_points(stored: StoredRecord) -> Iterator[Point]:
    """Yield the curves of a finished fit, at most a thousand points of each."""
    if stored.has(CURVE):
        columns = read_parquet(stored.folder / CURVE)
        at = milliseconds(stored.record.ended)
        rows = list(zip(columns["step"], columns["name"], columns["value"], strict=True))
        thinning = Thinning(max((int(step) for step, _, _ in rows), default=0))
        for step, name, value in thinning(rows):
            yield curve_point(int(step), name, float(value), at)


def curve_point(step: int, name: str, value: float, at: int) -> Point:
    """Return a point of a fit's curve."""
    return Point(CURVE_PREFIX + name, value, at, step)


def system_points(stored: StoredRecord) -> Iterator[Point]:
    """Yield the samples of memory and processors, at most a thousand of each."""
    path = stored.folder / "system.parquet"
    if not path.exists():
        return
    columns = read_parquet(path)
    start = milliseconds(stored.record.started)
    seconds = [float(one) for one in columns.pop("seconds")]
    kept = Thinning(len(seconds))
    for name in sorted(columns):
        values = zip(range(len(seconds)), [name] * len(seconds), columns[name], strict=True)
        for index, _, value in kept(values):
            yield from system_sample({name: float(value)}, start, seconds[index], index)


def system_sample(
    sample: Mapping[str, float], start: int, seconds: float, index: int
) -> Iterator[Point]:
    """Yield one sample of the system.

    Args:
        sample: values by name.
        start: of the cell, ms since 1970.
        seconds: from then to the sample.
        index: how many samples came before.
    """
    for name, value in sample.items():
        yield Point(SYSTEM_PREFIX + name, value, start + int(1000 * seconds), index)


def data_sets(record: Record) -> Iterator[tuple[str, str, str, str]]:
    """Yield of each of a cell's data sets: name, digest, source, and use, `test` or `teachers`."""
    for name in record.datasets:
        digest = record.dataset_digests[name]
        use = "test" if name in record.tested else "teachers"
        yield name, digest, canonical_json({"name": name, "sha256": digest}), use


def artifacts(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the files of a cell that become artifacts, each with the folder to put it in."""
    for name in FILES:
        if (folder / name).exists():
            yield folder / name, None
    for path in sorted(folder.glob("images/*.png")):
        yield path, "images"


def report_artifacts(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the files of a rendered report, each with the folder to put it in."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts):
            yield path, (Path("report") / inner).parent.as_posix()


def milliseconds(moment: str) -> int:
    """Return a moment in ISO form in ms since 1970."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def key_of(point: Point) -> tuple[str, int]:
    """Return what tells points of a run apart: the step of a curve's, the time of another's."""
    is_curve = point.name.startswith(CURVE_PREFIX)
    return point.name, point.step if is_curve else point.timestamp


def _tested(record: Record) -> str:
    return "+".join(record.tested)
