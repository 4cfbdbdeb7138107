"""The task lists on which a cell is scored."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contract import Learner
from bench.data.base import ImageData
from bench.data.tasks import TEST_SEED, TaskList, frozen_tasks, shares
from bench.execute.evaluate import fingerprint
from bench.seeds import derive_seed
from bench.suites.cell import Cell


def task_lists(
    cell: Cell, sets: Sequence[ImageData], split_name: str, learner: Learner
) -> list[TaskList]:
    """Return the tasks of each data set; their number is divided among the sets."""
    total = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    return [
        task_list(cell, data, split_name, learner, n_tasks)
        for data, n_tasks in zip(sets, shares(total, len(sets)), strict=True)
    ]


def task_list(
    cell: Cell, data: ImageData, split_name: str, learner: Learner, n_tasks: int | None = None
) -> TaskList:
    """Return the tasks of a split that a learner is scored on.

    With `frozen` they depend only on the data and the task shape. With `redrawn` each evaluation,
    on validation or test tasks, has its own tasks: their seed is derived from the cell and from the
    evaluated weights. With `test_max`, a checkpoint is therefore selected and reported on the same
    test tasks, as published.
    """
    base = TEST_SEED
    if cell.protocol.task_list == "redrawn":
        weights = fingerprint(learner)
        base = derive_seed("redrawn", cell.method, cell.learner, cell.preset, cell.seed, weights)
    if n_tasks is None:
        n_tasks = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    counts = data.splits[split_name].counts
    balanced = cell.protocol.query_counts == "balanced"
    return frozen_tasks(data.name, split_name, counts, cell.shape, n_tasks, base, balanced)
