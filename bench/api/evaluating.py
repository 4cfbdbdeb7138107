"""A learner on the frozen test tasks: one accuracy per task, mean and interval."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench import registry
from bench.api.fitting import FittedLearner
from bench.api.process import Told, as_it_was
from bench.contract import Learner, TaskShape
from bench.data.base import ImageData
from bench.data.tasks import TEST_SEED, TaskList, frozen_tasks
from bench.errors import BenchError, counted, unknown_name
from bench.execute import evaluate as scoring
from bench.execute.devices import choose_device
from bench.execute.evaluate import task_list
from bench.execute.progress import Progress
from bench.execute.testing import calibrated
from bench.learners.base import resized
from bench.nets.precision import computing_in
from bench.stats import Interval, mean_interval
from bench.suites.cell import UNCALIBRATED, Cell
from bench.suites.expand import calibration_layers, config_of

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import torch

SplitName = Literal["test", "val", "train"]


@dataclass(frozen=True, eq=False)
class Result:
    """What a learner reached on a list of tasks.

    Attributes:
        accuracies: (n,) fractions, one per task, in the list's order.
        classes: (n, n_way) which classes of the split each task is made of.
        task_list_sha256: digest of the list; results of equal ones can be compared task by task.
        label: the learner and the tasks in words.
    """

    accuracies: np.ndarray
    classes: np.ndarray
    task_list_sha256: str
    label: str

    @property
    def mean(self) -> float:
        """The mean accuracy, a fraction."""
        return float(self.accuracies.mean())

    @property
    def interval(self) -> Interval:
        """Mean, low and high of the 95 % t interval over tasks, fractions.

        Raises:
            BenchError: there is a single task.
        """
        return mean_interval(self.accuracies)

    def frame(self) -> pandas.DataFrame:
        """Return one row per task: `task`, `accuracy`, `class_0` and so on."""
        import pandas

        members = {f"class_{way}": column for way, column in enumerate(self.classes.T)}
        tasks = range(len(self.accuracies))
        return pandas.DataFrame({"task": tasks, "accuracy": self.accuracies, **members})

    def __str__(self) -> str:
        n = len(self.accuracies)
        half = f" ± {100 * (self.interval.high - self.mean):.1f}" if n > 1 else ""
        return f"{self.label}: {100 * self.mean:.1f}{half} % over {counted(n, 'task')}"


def evaluate(
    learner: Learner,
    data: ImageData,
    *,
    n_way: int | None = None,
    k_shot: int | None = None,
    n_query: int | None = None,
    n_tasks: int = 600,
    split: SplitName = "test",
    calibration: str = UNCALIBRATED,
    device: str | None = None,
    threads: int = 1,
    progress: Told | None = None,
    **config: Any,
) -> Result:
    """Score a learner on tasks of a data set, the same tasks for every learner.

    Args:
        learner: what `bench.fit` returned, or any `bench.contract.Learner`, which is on `device`
            and takes images normalised by the data set's mean and deviation. A fitted one takes
            those of another data set as it was fitted: normalised alike, at its meta-model's size.
        data: the data set.
        n_way: classes per task; None takes the fit's, 5 without one.
        k_shot: support images per class; None takes the fit's, 1 without one.
        n_query: query images per class; None takes the fit's, 15 without one.
        n_tasks: length of the list; a shorter list is the beginning of a longer one.
        split: the split that the tasks are of.
        calibration: a registered calibration of fitted learners, or `none`.
        device: of a learner that `bench.fit` did not make; a fitted one stays where it is.
        threads: CPU threads; another number may change rounding, and so results.
        progress: called with each standing.
        config: settings of the calibration over its defaults.

    Raises:
        BenchError: the data set has too few classes or images for such tasks, an unknown
            calibration or setting, or parts that do not go together.
    """
    told = Progress(progress) if progress else Progress()
    if isinstance(learner, FittedLearner):
        shape = _shape(learner.cell.shape, n_way, k_shot, n_query)
        cell = _tested(learner.cell, shape, n_tasks, calibration, config)
        with (
            as_it_was(learner.device, threads),
            computing_in(cell.protocol.precision, learner.device),
        ):
            return _fitted_result(learner, cell, data, split, told)
    if calibration != UNCALIBRATED or config:
        raise BenchError("a calibration needs a learner that bench.fit made; wrap yours yourself")
    shape = _shape(TaskShape(5, 1, 15), n_way, k_shot, n_query)
    tasks = frozen_tasks(data.name, split, data.splits[split].counts, shape, n_tasks, TEST_SEED)
    label = f"{type(learner).__name__} · {data.name} {shape.n_way}-way {shape.k_shot}-shot"
    place = choose_device(device)
    with as_it_was(place, threads):
        return _result(learner, data, split, tasks, place, told, label)


def _shape(
    fitted: TaskShape, n_way: int | None, k_shot: int | None, n_query: int | None
) -> TaskShape:
    given = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query}
    return dataclasses.replace(fitted, **{k: v for k, v in given.items() if v is not None})


def _tested(
    cell: Cell, shape: TaskShape, n_tasks: int, calibration: str, config: dict[str, Any]
) -> Cell:
    """Return the cell of a fit as it is tested."""
    values: dict[str, Any] = {}
    if calibration != UNCALIBRATED:
        known = [UNCALIBRATED, *registry.names("calibration")]
        if calibration not in known:
            raise unknown_name("calibration", calibration, known)
        layers = calibration_layers(calibration, {calibration: config})
        kind = registry.load("calibration", calibration).Config
        values = config_of(kind, layers, f"'{calibration}'")
    elif config:
        raise unknown_name("argument", next(iter(config)), evaluate.__kwdefaults__ or ())
    return cell.model_copy(
        update={
            **dataclasses.asdict(shape),
            "n_test_tasks": n_tasks,
            "calibration": calibration,
            "calibration_config": values,
        }
    )


def _fitted_result(
    fitted: FittedLearner, cell: Cell, data: ImageData, split: SplitName, told: Progress
) -> Result:
    known = fitted.fitted.known
    learner = calibrated(cell, fitted.learner)
    tasks = task_list(cell, data, split, learner, cell.n_test_tasks)
    if known.method.knowledge != "features" and data.image_size != known.net.image_size:
        learner = resized(learner, known.net.image_size)
    first = known.sets[0]
    alike = dataclasses.replace(data, mean=first.mean, std=first.std)
    label = cell.model_copy(update={"datasets": (data.name,)}).label
    return _result(learner, alike, split, tasks, fitted.device, told, label)


def _result(
    learner: Learner,
    data: ImageData,
    split: SplitName,
    tasks: TaskList,
    device: torch.device,
    told: Progress,
    label: str,
) -> Result:
    accuracies = scoring.evaluate(
        learner,
        data,
        data.splits[split],
        tasks,
        device,
        after=lambda known: told(f"{split} tasks", len(known), len(tasks)),
    )
    return Result(accuracies, tasks.classes, tasks.sha256, label)
