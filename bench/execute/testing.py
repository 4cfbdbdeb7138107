"""The test of a fitted cell: its answers to all queries, throughput and cost of prediction."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.checkpoints import Checkpoints
from bench.contract import EmbeddingLearner, Learner
from bench.data.base import ImageData
from bench.data.tasks import TaskList, lists_digest, numbered_classes
from bench.errors import BenchError
from bench.execute.evaluate import EmbeddingTable, answer, inference_cost, task_lists
from bench.execute.fits import Fit
from bench.execute.fitting import Fitted
from bench.execute.scenario import tested_data
from bench.execute.state import RunState
from bench.execute.timing import Elapsed, Stopwatch
from bench.results.predictions import Predictions, together, write_predictions
from bench.results.record import Cost, Timing, summarise
from bench.results.store import PREDICTIONS, TASKS, write_tasks
from bench.seeds import torch_generator
from bench.suites.cell import UNCALIBRATED, Cell

MOST_EMBEDDINGS = 2**28
"""Bytes of embeddings that a checkpoint of a test pass may hold."""


def score_cell(fitted: Fitted, folder: Path, state: RunState) -> dict[str, Any]:
    """Score a cell's learner on its test tasks; write its answers and the accuracy of each task.

    Args:
        fitted: the cell and its fit.
        folder: of the cell; both tables are written there.
        state: of the run.

    Returns:
        The parts of the record that come of it: accuracy, task lists, timing, cost; and `doubts`,
        which say what an interrupted pass had been made with otherwise.
    """
    cell = fitted.known.cell
    learner = calibrated(cell, fitted.learner())
    sets = tested_data(cell, fitted.known.sets)
    lists = task_lists(cell, sets, "test", learner)
    learner = fitted.known.at_its_size(learner)
    key = f"{fitted.fit.sha256}/{cell.learner}"
    tables = [state.embedding_table(key, data) for data in sets]
    cost = _cost(learner, sets, lists, fitted.fit.counters, state)
    judge = state.makers.cell(cell)
    checkpoints = Checkpoints(folder, f"test of {cell.label}", state.keeping, judge)
    test = TestPass(learner, sets, lists, tables, checkpoints, state, fitted.fit.sha256)
    answers = test.run()
    accuracies = answers.accuracies
    write_predictions(folder / PREDICTIONS, answers)
    n_classes = [len(data.splits["test"].classes) for data in sets]
    write_tasks(folder / TASKS, accuracies, numbered_classes(n_classes, lists))
    checkpoints.clear()
    return {
        "accuracy": summarise(accuracies),
        "task_list_sha256": lists_digest(lists),
        "timing": _timing(fitted.fit, test.elapsed, len(accuracies), test.reused),
        "cost": cost,
        "doubts": [checkpoints.doubt] if checkpoints.doubt else [],
    }


class TestPass:
    """A learner on its test tasks: what is known of them, kept in checkpoints.

    Args:
        learner: what is scored.
        sets: the data sets.
        lists: the tasks of each.
        tables: the embeddings of each, for an `EmbeddingLearner`.
        checkpoints: where an interrupted pass goes on from.
        state: of the run.
        fit: digest of the fit that is scored.

    Attributes:
        reused: whether embeddings of another cell were used.
    """

    def __init__(
        self,
        learner: Learner,
        sets: Sequence[ImageData],
        lists: Sequence[TaskList],
        tables: Sequence[EmbeddingTable],
        checkpoints: Checkpoints,
        state: RunState,
        fit: str,
    ) -> None:
        self._learner, self._sets, self._lists, self._tables = learner, sets, lists, tables
        self._checkpoints, self._state = checkpoints, state
        self._of = ["predictions", fit, lists_digest(lists)]
        self._clock = Stopwatch(state.device)
        self._known = [Predictions.empty(0, *_widths(tasks)) for tasks in lists]
        self._before = Elapsed()
        self.reused = any(table.n_known for table in tables)
        saved = checkpoints.load()
        if saved is not None and saved["of"] == self._of:
            self._restore(saved)

    @property
    def elapsed(self) -> Elapsed:
        """What the pass has taken, before an interruption and since."""
        return self._before.plus(self._clock.so_far)

    def run(self) -> Predictions:
        """Return the answers to the tasks of all sets, one set after the other.

        Raises:
            Stopped: the end was asked for; what is known is kept.
        """
        with self._clock.running():
            for number, (data, tasks) in enumerate(zip(self._sets, self._lists, strict=True)):
                self._known[number] = answer(
                    self._learner,
                    data,
                    data.splits["test"],
                    tasks,
                    self._state.device,
                    self._tables[number],
                    self._known[number],
                    functools.partial(self._after, number),
                )
        return together(self._known)

    def _after(self, number: int, answers: Predictions) -> None:
        self._known[number] = answers
        self._state.progress("test tasks", len(answers), len(self._lists[number]))
        if not self._checkpoints.due():
            return
        with self._clock.paused():
            if isinstance(self._learner, EmbeddingLearner) and self._is_too_large:
                self._state.keeping.stop.check()
            else:
                done, total = sum(map(len, self._known)), sum(map(len, self._lists))
                self._checkpoints.write(self._saved(), f"task {done} of {total}")

    @property
    def _is_too_large(self) -> bool:
        """Whether the embeddings, without which the pass cannot go on, are too many to be kept."""
        return sum(table.n_bytes for table in self._tables) > MOST_EMBEDDINGS

    def _saved(self) -> dict[str, Any]:
        embeds = isinstance(self._learner, EmbeddingLearner)
        return {
            "of": self._of,
            "answers": [
                [torch.from_numpy(part.copy()) for part in (one.predicted, one.true, one.margin)]
                for one in self._known
            ],
            **self.elapsed.state_dict(),
            "reused": self.reused,
            "tables": [table.state_dict() for table in self._tables] if embeds else [],
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._known = [Predictions(*(one.numpy() for one in part)) for part in saved["answers"]]
        self._before, self.reused = Elapsed.from_state(saved), saved["reused"]
        for table, embeddings in zip(self._tables, saved["tables"], strict=False):
            table.load_state_dict(embeddings)


def _widths(tasks: TaskList) -> tuple[int, int]:
    """Return the queries and the classes of each task."""
    return tasks.shape.n_way * tasks.shape.n_query, tasks.shape.n_way


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


def _timing(fit: Fit, test: Elapsed, n_tasks: int, reused: bool) -> Timing:
    return Timing(
        fit_s=fit.elapsed.seconds,
        fit_cpu_s=fit.elapsed.known_cpu,
        meta_iterations_per_s=fit.steps_per_s if "train_tasks" in fit.counters else None,
        train_tasks_per_s=fit.rate("train_tasks"),
        pseudo_images_per_s=fit.rate("pseudo_images"),
        test_s=test.seconds,
        test_cpu_s=test.known_cpu,
        test_tasks_per_s=n_tasks / test.seconds,
        embeddings_reused=reused,
    )
