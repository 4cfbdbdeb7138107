"""What a cell computes: its pool, its fit, its learner, and how that does on the test tasks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.contract import FitContext, Learner, Method, NetSpec, Pool
from bench.data.base import ImageData
from bench.errors import BenchError, Skip
from bench.execute.context import at_its_size, fit_context
from bench.execute.evaluate import evaluate, inference_cost
from bench.execute.fits import Fit, fit_key, obtain_fit
from bench.execute.scenario import (
    meta_spec,
    refused_by_plan,
    scenario_data,
    tested_data,
)
from bench.execute.task_lists import lists_digest, numbered_classes, task_lists
from bench.execute.timing import Stopwatch
from bench.execute.workplace import Workplace, embedding_table, obtain_pool
from bench.results.files import content_hash
from bench.results.record import Cost, FitSummary, PoolSummary, Timing, summarise
from bench.results.store import SIMILARITY, TASKS, write_tasks
from bench.seeds import seed_global_state, torch_generator
from bench.suites.cell import UNCALIBRATED, Cell, PoolChoice
from bench.teachers.adapt import normalises_otherwise
from bench.teachers.similarity import similarity_file


@dataclass(frozen=True)
class Fitted:
    """A cell's method after its fit, and what it was fitted on.

    `key` names the fit; `context` is what `skip`, `notes` and `learner` are given.
    """

    method: Method
    pool: Pool
    net: NetSpec
    sets: Sequence[ImageData]
    context: FitContext
    key: str
    fit: Fit


def score(cell: Cell, folder: Path, place: Workplace, logger: logging.Logger) -> dict[str, Any]:
    """Fit and test a cell; return the parts of the record that only a scored cell has.

    Raises:
        Skip: the method cannot serve the cell, and why.
        BenchError: it could, but something went wrong.
    """
    seed_global_state(cell.method, cell.seed)
    fitted = _fit(cell, place)
    fit, pool = fitted.fit, fitted.pool
    logger.info("fit %s: %.1f s%s", fitted.key, fit.seconds, " (reused)" if fit.reused else "")
    tested = _test(cell, fitted, folder, place)
    _copy_fit_files(fit, folder)
    if similarity := similarity_file(place.cache, pool, fitted.sets, place.device):
        (folder / SIMILARITY).write_bytes(similarity.read_bytes())
    accuracy = tested["accuracy"]
    logger.info("accuracy %.4f over %d tasks", accuracy.mean, accuracy.n)
    return {
        **tested,
        "pool": summarise_pool(pool, cell.pool) if len(pool) else None,
        "fit": FitSummary(sha256=fit.sha256, reused=fit.reused, strategies=fit.strategies),
        "validated": fitted.method.validates,
        "notes": (
            *fitted.method.notes(fitted.context),
            *fit.notes,
            *_taken_over(fitted.method, pool),
        ),
    }


def _fit(cell: Cell, place: Workplace) -> Fitted:
    """Obtain the pool and the fit.

    Raises:
        Skip: the method cannot serve the cell, and why.
    """
    method_class = registry.load("method", cell.method)
    method: Method = method_class()
    sets = scenario_data(cell, place.data)
    if reason := refused_by_plan(method_class, cell):
        raise Skip(reason)
    pool = obtain_pool(cell, place) if method.uses_pool else Pool([], "")
    net = meta_spec(cell, sets)
    make_context = functools.partial(fit_context, cell, method, pool, net, sets, place.device)
    context = make_context()
    if reason := _lacking_statistics(method, context) or method.skip(context):
        raise Skip(reason)
    pixels = sets[0].mean, sets[0].std
    key = fit_key(method_class, cell, net, pool.sha256, data_digest(sets), pixels)
    say = functools.partial(place.progress, "fit")
    fit = obtain_fit(place.cache, key, method, make_context, place.device, say)
    return Fitted(method, pool, net, sets, context, key, fit)


def _test(cell: Cell, fitted: Fitted, folder: Path, place: Workplace) -> dict[str, Any]:
    """Score the learner on the test tasks, write each task's accuracy, and return the record's
    parts: accuracy, timing, cost, task lists."""
    fit, device = fitted.fit, place.device
    learner = calibrated(cell, fitted.method.learner(fitted.context, fit.tensors))
    tested = tested_data(cell, fitted.sets)
    lists = task_lists(cell, tested, "test", learner)
    learner = at_its_size(fitted.method, learner, fitted.net, fitted.sets)
    tables = [embedding_table(place, f"{fitted.key}/{cell.learner}", data) for data in tested]
    known = sum(table.n_known for table in tables)
    costs = [
        inference_cost(learner, data, data.splits["test"], tasks, device)
        for data, tasks in zip(tested, lists, strict=True)
    ]
    clock = Stopwatch(device)
    say = functools.partial(place.progress, "test tasks")
    with clock.running():
        accuracies = np.concatenate(
            [
                evaluate(learner, data, data.splits["test"], tasks, device, table, say)
                for data, tasks, table in zip(tested, lists, tables, strict=True)
            ]
        )
    write_tasks(folder / TASKS, accuracies, numbered_classes(tested, lists))
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
