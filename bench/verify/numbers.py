"""Checks of a record's numbers: what follows from its tables, and what cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.contract import TaskShape
from bench.data.tasks import lists_digest, numbered_classes
from bench.errors import BenchError
from bench.results.files import described_parquet, read_parquet
from bench.results.predictions import Predictions, read_predictions
from bench.results.record import Accuracy, Record, summarise
from bench.results.store import PREDICTIONS, TASKS
from bench.verify import known
from bench.verify.findings import Checked, Finding, doubt, refused
from bench.verify.plausible import warnings
from bench.verify.pools import pools

NEAR = 1e-9
"""How far a number may be from what it is recomputed as: the rounding of sums."""
CLASS = "class_"
INTEGERS = ("int8", "int16", "int32", "int64")
TASK_TYPES = {"task": INTEGERS, "accuracy": ("double",), CLASS: INTEGERS}
PREDICTION_TYPES = {"predicted": INTEGERS, "true": INTEGERS, "margin": ("halffloat",)}
META_TRAINS = ("inversion", "real_data")
LEAST_SHARE = 0.5
"""Of the training tasks that its budget names, what a fit's time and rate must account for."""


def numbers(record: Record, folder: Path, checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with a record's numbers.

    Args:
        record: of the cell.
        folder: of the cell.
        checked: takes note of the checks that could be made.
    """
    if record.status != "done":
        yield from _without_result(record)
        return
    if record.accuracy is None:
        yield refused("accuracy", "it is done and has no accuracy")
        return
    yield from pools(record)
    yield from warnings(record)
    try:
        check_table(folder / TASKS, record.n_test_tasks, TASK_TYPES)
        columns = read_parquet(folder / TASKS, ("task", "accuracy"))
        values = columns["accuracy"]
        if not np.array_equal(columns["task"], np.arange(len(values))):
            raise BenchError(f"{TASKS} does not number its tasks from 0 on")
        found = summarise(values)
    except BenchError as error:
        yield refused("tasks", str(error))
        return
    yield from _accuracy(record.accuracy, found, TASKS)
    queries = record.n_way * record.n_query
    if np.abs(values * queries - np.round(values * queries)).max() > NEAR * queries:
        yield refused("tasks", f"an accuracy in {TASKS} is none of {queries} queries")
    yield from _task_list(record, columns, checked)
    yield from _predictions(record, folder, values, checked)
    yield from _rates(record)


def check_table(path: Path, n: int, types: Mapping[str, Sequence[str]]) -> None:
    """Raise where a table has not the rows and columns that it should, before any value is read.

    A few bytes of a table may stand for billions of rows.

    Args:
        path: the table.
        n: its rows, as the record says.
        types: of the columns that it may have, by name without the number that follows `class_`.

    Raises:
        BenchError: it is missing or damaged, or is another table.
    """
    rows, columns = described_parquet(path)
    if rows != n:
        raise BenchError(f"{path.name} has {rows} rows; the record says {n}")
    for name, kind in columns.items():
        allowed = types.get(CLASS if re.fullmatch(r"class_\d+", name) else name, ())
        if kind not in allowed:
            wanted = (
                f"not {' or '.join(allowed)}" if allowed else "which is no column of such a table"
            )
            raise BenchError(f"{path.name} has {name} as {kind}, {wanted}")


def lists_classes(folder: Path) -> bool:
    """Tell whether a cell's table of tasks names their classes; True where it cannot be read."""
    try:
        return "class_0" in described_parquet(folder / TASKS)[1]
    except BenchError:
        return True


def _without_result(record: Record) -> Iterator[Finding]:
    if record.accuracy is not None:
        yield refused("accuracy", f"it is {record.status} and has an accuracy")
    if not record.reason:
        yield refused("status", f"it is {record.status} without a reason")
    if record.status == "failed":
        yield doubt("status", f"it failed: {record.reason}")


def _accuracy(stored: Accuracy, found: Accuracy, source: str) -> Iterator[Finding]:
    for name in ("n", "mean", "std", "ci95"):
        a, b = getattr(stored, name), getattr(found, name)
        if not abs(a - b) <= NEAR:
            yield refused("accuracy", f"{name} is {a:.6g} in the record, {b:.6g} by {source}")


def _task_list(
    record: Record, columns: dict[str, np.ndarray], checked: Checked
) -> Iterator[Finding]:
    """Compare tasks with the frozen list, drawn again, and their classes with the test split."""
    tested = tuple(name for name in record.datasets if name in record.tested)
    shape = TaskShape(record.n_way, record.k_shot, record.n_query)
    names = [f"class_{way}" for way in range(record.n_way)]
    classes = None
    if set(names) <= columns.keys():
        classes = np.stack([columns[name] for name in names], axis=1)
        yield from _classes(classes, tested)
    elif any(name.startswith("class_") for name in columns):
        yield refused("classes", f"{TASKS} names other classes than those of {record.n_way} ways")
        return
    if record.protocol["task_list"] != "frozen":
        return
    try:
        balanced = _is_balanced(record)
        lists = known.drawn_lists(tested, shape, record.n_test_tasks, balanced)
        wanted = known.frozen_digest(tested, shape, record.n_test_tasks, balanced)
    except BenchError as error:
        yield refused("task list", str(error))
        return
    if lists is None or wanted is None:
        yield doubt("task list", f"the frozen tasks of {', '.join(tested)} are not known here")
        return
    checked.counted.add("task list")
    if record.task_list_sha256 != wanted:
        found = str(record.task_list_sha256)[:12]
        yield refused("task list", f"its digest is {found}, that of the frozen list {wanted[:12]}")
    if lists_digest(lists) != wanted:
        yield doubt("task list", "this version draws other tasks than the list that it ships")
    counts = [len(known.class_counts(name) or ()) for name in tested]
    if classes is not None and not np.array_equal(classes, numbered_classes(counts, lists)):
        yield refused("classes", "its tasks are of other classes than those of the frozen list")


def _classes(classes: np.ndarray, tested: tuple[str, ...]) -> Iterator[Finding]:
    if (np.diff(np.sort(classes, axis=1), axis=1) == 0).any():
        yield refused("classes", "a task has one class twice")
    counts = [known.class_counts(name) for name in tested]
    total = None if any(one is None for one in counts) else sum(len(one or ()) for one in counts)
    if classes.min() < 0 or (total is not None and classes.max() >= total):
        worst = int(classes.min() if classes.min() < 0 else classes.max())
        yield refused("classes", f"class {worst} is outside the test split's {total} classes")


def _is_balanced(record: Record) -> bool:
    return record.protocol["query_counts"] == "balanced"


def _predictions(
    record: Record, folder: Path, values: np.ndarray, checked: Checked
) -> Iterator[Finding]:
    if not (folder / PREDICTIONS).exists():
        return
    try:
        queries = len(values) * record.n_way * record.n_query
        check_table(folder / PREDICTIONS, queries, PREDICTION_TYPES)
        found = read_predictions(folder / PREDICTIONS, len(values))
    except BenchError as error:
        yield refused("predictions", str(error))
        return
    checked.counted.add("predictions")
    yield from _answers(record, found)
    wrong = np.flatnonzero(np.abs(found.accuracies - values) > NEAR)
    if len(wrong):
        text = f"{len(wrong)} tasks have another accuracy by their predictions, the first"
        first = int(wrong[0])
        yield refused(
            "predictions",
            f"{text} task {first}: {found.accuracies[first]:.4f}, not {values[first]:.4f}",
        )
    if record.accuracy is not None:
        yield from _accuracy(record.accuracy, summarise(found.accuracies), PREDICTIONS)


def _answers(record: Record, found: Predictions) -> Iterator[Finding]:
    truth = _truth(record)
    if truth is not None and not (found.true == truth).all():
        yield refused("predictions", "the true classes are not those of the frozen queries")
    if found.predicted.min() < 0 or found.predicted.max() >= record.n_way:
        yield refused("predictions", f"a predicted class is none of 0 to {record.n_way - 1}")
    if not (found.margin >= 0).all():
        yield refused("predictions", "a margin is negative, or no number")


def _truth(record: Record) -> np.ndarray | None:
    """Return the true classes of all queries, (n, q) or (q,); None where they are not known."""
    if _is_balanced(record):
        return np.repeat(np.arange(record.n_way), record.n_query)
    tested = tuple(name for name in record.datasets if name in record.tested)
    shape = TaskShape(record.n_way, record.k_shot, record.n_query)
    frozen = record.protocol["task_list"] == "frozen"
    lists = known.drawn_lists(tested, shape, record.n_test_tasks, False) if frozen else None
    return None if lists is None else np.concatenate([one.query_labels for one in lists])


def _rates(record: Record) -> Iterator[Finding]:
    """Yield what no machine can have done."""
    timing, cost = record.timing, record.cost
    for name, value in [*timing, *cost, ("energy_j", record.energy_j)]:
        if value is not None and not isinstance(value, bool) and not 0 <= value < math.inf:
            yield refused("rates", f"{name} is {value}")
            return
    if not timing.test_s or not timing.test_tasks_per_s:
        yield refused("rates", "its test took no time")
    elif abs(timing.test_s * timing.test_tasks_per_s / record.scored.n - 1) > 1e-6:
        yield refused("rates", "its test's time and rate do not come to its number of tasks")
    yield from _fit_rates(record)
    if record.device.threads < 1:
        yield refused("rates", f"it ran with {record.device.threads} threads")


def _fit_rates(record: Record) -> Iterator[Finding]:
    timing, own = record.timing, known.settings("method", record.method)
    if timing.train_tasks_per_s is None:
        if own and record.knowledge in META_TRAINS and (timing.fit_s or 0) < 1e-3:
            text = f"its fit of {record.method} took {timing.fit_s} s, without a training task"
            yield refused("rates", text)
        return
    done = (timing.fit_s or 0) * timing.train_tasks_per_s
    steps = min(record.budget["meta_iterations"], record.budget["oracle_iterations"])
    named = steps * record.protocol["tasks_per_meta_batch"] if own else 1
    if done < LEAST_SHARE * named:
        yield refused(
            "rates",
            f"a fit of {timing.fit_s or 0:.3g} s at {timing.train_tasks_per_s:.3g} training "
            f"tasks per second is of {done:.0f} tasks; the budget has {named}",
        )
