"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import datetime
import functools
import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from bench import registry
from bench.cells import UNCALIBRATED, Cell, PoolChoice
from bench.contract import FitContext, Learner, Method, Pool
from bench.data.base import ImageData
from bench.errors import BenchError
from bench.evaluate import evaluate, inference_cost
from bench.execute.context import at_its_size, fit_context
from bench.execute.fits import Fit, fit_key, obtain_fit
from bench.execute.scenario import (
    meta_spec,
    refused_by_plan,
    scenario_data,
    tested_data,
)
from bench.execute.strategies import Strategies
from bench.execute.task_lists import lists_digest, numbered_classes, task_lists
from bench.execute.workplace import Skipped, Workplace, embedding_table, obtain_pool
from bench.nets.precision import computing_in
from bench.records import (
    RECORD,
    SIMILARITY,
    TASKS,
    Cost,
    FitSummary,
    PoolSummary,
    Record,
    Timing,
    content_hash,
    is_finished,
    mark_done,
    summarise,
    write_json,
    write_parquet,
    write_tasks,
)
from bench.runtime import describe_device, describe_environment
from bench.seeds import seed_global_state, torch_generator
from bench.teachers.adapt import normalises_otherwise
from bench.teachers.similarity import similarity_file
from bench.timing import Stopwatch, SystemSampler

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""


def run_cell(cell: Cell, place: Workplace) -> Path:
    """Run one cell unless it is finished, and return its folder; never raises for its failure.

    Two processes that want the same cell wait for one another.
    """
    name = cell.hash(place.digests)
    folder = place.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder / f".{name}.lock"):
        if not has_result(folder):
            _run(cell, name, folder, place)
    return folder


def has_result(folder: Path) -> bool:
    """Tell whether a cell is finished for good: done or skipped, and every file intact."""
    if not is_finished(folder):
        return False
    text = (folder / RECORD).read_text(encoding="utf-8")
    return '"status": "failed"' not in text


def _run(cell: Cell, name: str, folder: Path, place: Workplace) -> None:
    (folder / "DONE").unlink(missing_ok=True)
    write_json(folder / "config.json", cell.model_dump(mode="json"))
    started = _now()
    logger = _file_logger(folder)
    logger.info("cell %s: %s", name, cell.label)
    parts: dict[str, Any] = {}
    method = registry.load("method", cell.method)
    with SystemSampler(place.device) as sampler:
        try:
            with computing_in(cell.protocol.precision, place.device):
                parts = _score(cell, folder, place, logger)
            status, reason = "done", None
        except Skipped as skipped:
            status, reason = "skipped", str(skipped)
        except BenchError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
            logger.error("%s", traceback.format_exc())
    if "timing" in parts:
        parts["timing"].peak_memory_bytes = sampler.peak_memory_bytes
    logger.info("%s%s", status, f": {reason}" if reason else "")
    _close(logger)
    record = Record(
        status=status,
        reason=reason,
        suite=place.suite,
        cell_hash=name,
        dataset_digests={d: place.data[d].digest for d in cell.datasets},
        knowledge=method.knowledge_of(method.Config.model_validate(cell.method_config)),
        variant=cell.variant,
        selection=cell.protocol.selection if parts.pop("validated", False) else "last",
        device=describe_device(place.device),
        environment=describe_environment(),
        command=_command(cell, place.command),
        warnings=[*_warnings(cell), *parts.pop("notes", ())],
        started=started,
        ended=_now(),
        **cell.model_dump(mode="json", exclude={"pool"}),
        **parts,
    )
    write_parquet(folder / "system.parquet", sampler.rows)
    write_json(folder / RECORD, record.model_dump(mode="json"))
    mark_done(folder)


def _score(cell: Cell, folder: Path, place: Workplace, logger: logging.Logger) -> dict[str, Any]:
    """Return the parts of the record that only a scored cell has."""
    seed_global_state(cell.method, cell.seed)
    method_class = registry.load("method", cell.method)
    method: Method = method_class()
    sets = scenario_data(cell, place.data)
    reason = refused_by_plan(method_class, cell)
    if reason:
        raise Skipped(reason)
    pool = obtain_pool(cell, place) if method.uses_pool else Pool([], "")
    net = meta_spec(cell, sets)
    strategies = Strategies(place.cache, place.device)
    make_context = functools.partial(
        fit_context, cell, method, pool, net, sets, place.device, strategies
    )
    reason = _lacking_statistics(method, make_context()) or method.skip(make_context())
    if reason:
        raise Skipped(reason)
    pixels = sets[0].mean, sets[0].std
    key = fit_key(method_class, cell, net, pool.sha256, data_digest(sets), pixels)
    say = functools.partial(place.progress, "fit")
    fit = obtain_fit(place.cache, key, method, make_context, place.device, say, strategies)
    logger.info("fit %s: %.1f s%s", key, fit.seconds, " (reused)" if fit.reused else "")
    learner = calibrated(cell, method.learner(make_context(), fit.tensors))
    tested = tested_data(cell, sets)
    lists = task_lists(cell, tested, "test", learner)
    learner = at_its_size(method, learner, net, sets)
    tables = [embedding_table(place, f"{key}/{cell.learner}", data) for data in tested]
    known = sum(table.n_known for table in tables)
    costs = [
        inference_cost(learner, data, data.splits["test"], tasks, place.device)
        for data, tasks in zip(tested, lists, strict=True)
    ]
    clock = Stopwatch(place.device)
    say = functools.partial(place.progress, "test tasks")
    with clock.running():
        accuracies = np.concatenate(
            [
                evaluate(learner, data, data.splits["test"], tasks, place.device, table, say)
                for data, tasks, table in zip(tested, lists, tables, strict=True)
            ]
        )
    write_tasks(folder / TASKS, accuracies, numbered_classes(tested, lists))
    _copy_fit_files(fit, folder)
    if similarity := similarity_file(place.cache, pool, sets, place.device):
        (folder / SIMILARITY).write_bytes(similarity.read_bytes())
    logger.info("accuracy %.4f over %d tasks", accuracies.mean(), len(accuracies))
    return {
        "accuracy": summarise(accuracies),
        "task_list_sha256": lists_digest(lists),
        "timing": _timing(fit, clock.seconds, len(accuracies), known > 0),
        "cost": Cost(
            params=learner.n_parameters,
            macs_per_query_image=round(float(np.mean([per_image for per_image, _ in costs]))),
            macs_adapt_per_task=round(float(np.mean([per_task for _, per_task in costs]))),
            teacher_forward_images=fit.counters.get("teacher_forward_images", 0),
            queries=fit.counters.get("queries", 0),
        ),
        "pool": summarise_pool(pool, cell.pool) if len(pool) else None,
        "fit": FitSummary(sha256=fit.sha256, reused=fit.reused, strategies=fit.strategies),
        "validated": method.validates,
        "notes": (*method.notes(make_context()), *_taken_over(method, pool)),
    }


def calibrated(cell: Cell, learner: Learner) -> Learner:
    """Return the learner as the cell calibrates it: itself, or wrapped.

    What a calibration draws for a task depends on the repetition and the task's place in the
    list, not on the method, so that methods are compared under the same draws.

    Raises:
        BenchError: the method's learner is of a kind that the calibration cannot serve.
    """
    if cell.calibration == UNCALIBRATED:
        return learner
    kind = registry.load("calibration", cell.calibration)
    reason = kind.refuse(type(learner))
    if reason:
        raise BenchError(
            f"calibration '{cell.calibration}' cannot serve method '{cell.method}': {reason}"
        )
    return kind().wrap(
        learner,
        kind.Config.model_validate(cell.calibration_config),
        lambda task: torch_generator("calibration", cell.calibration, cell.seed, task),
    )


def _taken_over(method: Method, pool: Pool) -> list[str]:
    """Say which teachers' weights meet other pixels than they were trained on."""
    names = [teacher.name for teacher in pool if normalises_otherwise(teacher)]
    if not names or method.knowledge == "features":
        return []
    return [
        f"teachers trained on pixels of another mean and deviation ({', '.join(names)}): their "
        "predictions allow for it, weights that are merged or started from do not"
    ]


def _lacking_statistics(method: Method, context: FitContext) -> str | None:
    if "bn_statistics" in method.needs_of(context.config):
        for teacher in method.teachers_used(context):
            if not any(isinstance(part, torch.nn.BatchNorm2d) for part in teacher.net.modules()):
                return (
                    f"needs batch norm statistics; teacher {teacher.name} "
                    f"({teacher.spec.architecture}) has no batch norm"
                )
    return None


def data_digest(sets: Sequence[ImageData]) -> str:
    """Return the digest of one data set, or of several together."""
    digests = [one.digest for one in sets]
    return digests[0] if len(digests) == 1 else content_hash(digests)


def _timing(fit: Fit, test_seconds: float, n_tasks: int, reused: bool) -> Timing:
    return Timing(
        fit_s=fit.seconds,
        meta_iterations_per_s=fit.steps_per_s if "train_tasks" in fit.counters else None,
        train_tasks_per_s=fit.rate("train_tasks"),
        pseudo_images_per_s=fit.rate("pseudo_images"),
        test_s=test_seconds,
        test_tasks_per_s=n_tasks / test_seconds,
        embeddings_reused=reused,
    )


def summarise_pool(pool: Pool, imported: PoolChoice | None = None) -> PoolSummary:
    """Return what a record says of a pool."""
    kinds = [teacher.spec.architecture for teacher in pool]
    return PoolSummary(
        name=imported.name if imported else None,
        sha256=pool.sha256,
        n=len(pool),
        mean_accuracy=pool.mean_accuracy,
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        teachers=[
            {
                "name": teacher.name,
                "dataset": teacher.dataset,
                "architecture": teacher.spec.architecture,
                "image_size": teacher.spec.image_size,
                "classes": list(teacher.class_names),
                "accuracy": teacher.accuracy,
                "sha256": teacher.sha256,
            }
            for teacher in pool
        ],
    )


def _copy_fit_files(fit: Fit, folder: Path) -> None:
    """Give the cell its own copy of the fit's curves and images: a record stands alone."""
    for path in [fit.folder / "curve.parquet", *sorted(fit.folder.glob("images/*.png"))]:
        if path.exists():
            target = folder / path.relative_to(fit.folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())


def _warnings(cell: Cell) -> list[str]:
    """Return what a reader should know before trusting the number."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def _command(cell: Cell, command: str) -> str:
    """Return a command that runs this cell and its like."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _file_logger(folder: Path) -> logging.Logger:
    logger = logging.getLogger(f"purer_bench.{folder.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
