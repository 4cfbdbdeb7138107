"""The test of a fitted cell: one accuracy per task, throughput and cost of prediction."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.contract import Learner
from bench.data.base import ImageData
from bench.data.tasks import TaskList
from bench.errors import BenchError
from bench.execute.cost import inference_cost
from bench.execute.evaluate import evaluate
from bench.execute.fits import Fit
from bench.execute.fitting import Fitted
from bench.execute.scenario import tested_data
from bench.execute.state import RunState
from bench.execute.task_lists import lists_digest, numbered_classes, task_lists
from bench.execute.timing import Stopwatch
from bench.results.record import Cost, Timing, summarise
from bench.results.store import TASKS, write_tasks
from bench.seeds import torch_generator
from bench.suites.cell import UNCALIBRATED, Cell


def score_cell(fitted: Fitted, folder: Path, state: RunState) -> dict[str, Any]:
    """Score a cell's learner on its test tasks and write the accuracy of each.

    Args:
        fitted: the cell and its fit.
        folder: of the cell; the task table is written there.
        state: of the run.

    Returns:
        The parts of the record that come of it: accuracy, task lists, timing, cost.
    """
    cell, device = fitted.known.cell, state.device
    learner = calibrated(cell, fitted.learner())
    sets = tested_data(cell, fitted.known.sets)
    lists = task_lists(cell, sets, "test", learner)
    learner = fitted.known.at_its_size(learner)
    key = f"{fitted.fit.sha256}/{cell.learner}"
    tables = [state.embedding_table(key, data) for data in sets]
    reused = any(table.n_known for table in tables)
    cost = _cost(learner, sets, lists, fitted.fit.counters, state)
    clock = Stopwatch(device)
    say = functools.partial(state.progress, "test tasks")
    with clock.running():
        accuracies = np.concatenate(
            [
                evaluate(learner, data, data.splits["test"], tasks, device, table, say)
                for data, tasks, table in zip(sets, lists, tables, strict=True)
            ]
        )
    write_tasks(folder / TASKS, accuracies, numbered_classes(sets, lists))
    return {
        "accuracy": summarise(accuracies),
        "task_list_sha256": lists_digest(lists),
        "timing": _timing(fitted.fit, clock.seconds, len(accuracies), reused),
        "cost": cost,
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


def _cost(
    learner: Learner,
    sets: Sequence[ImageData],
    lists: Sequence[TaskList],
    counters: dict[str, int],
    state: RunState,
) -> Cost:
    """Return what prediction costs, averaged over the data sets, and what the fit counted."""
    costs = [
        inference_cost(learner, data, data.splits["test"], tasks, state.device)
        for data, tasks in zip(sets, lists, strict=True)
    ]
    return Cost(
        params=learner.n_parameters,
        macs_per_query_image=round(float(np.mean([per_image for per_image, _ in costs]))),
        macs_adapt_per_task=round(float(np.mean([per_task for _, per_task in costs]))),
        teacher_forward_images=counters.get("teacher_forward_images", 0),
        queries=counters.get("queries", 0),
    )


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
