"""Checks of calibrations, around the learners that they serve."""

from __future__ import annotations

import functools

import torch

from bench import registry
from bench.contract import BnMode, Calibration, DrawingLearner, Learner, TaskBatch
from bench.seeds import torch_generator
from bench.testing.checks import Check, require
from bench.testing.learners import LearnerSubject
from bench.testing.rules import (
    learners_beside,
    predicted,
    require_config,
    require_docstring,
    require_public_imports,
    require_queries_alone,
    require_tasks_apart,
    require_unchanged,
    settings_among,
    some_tasks,
    state_of,
    untouched_global_state,
)

QUICK = {"steps": 3, "inversion_steps": 2, "rounds": 5}
"""Settings that shorten a calibration, for those that have them."""


class CalibrationSubject:
    """A calibration and the learners that it serves.

    Args:
        name: the registered name.
        net: architecture of the learners' network.
    """

    def __init__(self, name: str, net: str = "conv4") -> None:
        self.name, self.net = name, net
        self.kind: type[Calibration] = registry.load("calibration", name)

    def verdicts(self) -> dict[str, str | None]:
        """Return for each registered learner why it cannot be calibrated, None if it can."""
        names = learners_beside("calibration", self.name)
        return {name: self.kind.refuse(registry.load("learner", name)) for name in names}

    def learners(self, bn: BnMode = "transductive") -> list[Learner]:
        """Return the learners that it can calibrate, with a mode of batch norm."""
        served = [name for name, reason in self.verdicts().items() if reason is None]
        require(served, "it refuses every registered learner")
        return [LearnerSubject(name, self.net).make(bn) for name in served]

    def wrap(self, learner: Learner, seed: int = 0, quick: bool = True) -> Learner:
        """Return a calibrated learner, which draws by a seed and the task's place.

        Args:
            learner: to be calibrated.
            seed: of its draws.
            quick: with those settings of `QUICK` that the calibration has; else with its defaults.
        """
        generator = functools.partial(torch_generator, "calibration", self.name, seed)
        config = self.kind.Config(**(settings_among(self.kind.Config, QUICK) if quick else {}))
        return self.kind().wrap(learner, config, generator)


def describes_itself(subject: CalibrationSubject) -> str:
    """Is a subclass of Calibration with a docstring, and one below each setting."""
    require(issubclass(subject.kind, Calibration), f"{subject.kind} is no subclass of Calibration")
    require(subject.kind.name == subject.name, f"name is '{subject.kind.name}'")
    require_config(subject.kind.Config)
    return require_docstring(subject.kind)


def imports_only_what_plug_ins_may(subject: CalibrationSubject) -> None:
    """Imports no part of the harness that is not meant for plug-ins."""
    require_public_imports(subject.kind)


def says_whom_it_serves(subject: CalibrationSubject) -> str:
    """Serves a registered learner; gives a reason for each that it refuses."""
    verdicts = subject.verdicts()
    silent = [name for name, reason in verdicts.items() if reason is not None and not reason]
    require(not silent, f"refuses {', '.join(silent)} without a reason")
    served = [name for name, reason in verdicts.items() if reason is None]
    require(served, "it refuses every registered learner")
    return f"serves {', '.join(served)}"


def predicts_every_task(subject: CalibrationSubject) -> None:
    """Predicts with each learner that it serves, twice the same, and changes none."""
    for learner in subject.learners():
        net = getattr(learner, "net", None)
        before = None if net is None else state_of(net)
        with untouched_global_state():
            first = predicted(subject.wrap(learner), some_tasks())
            again = predicted(subject.wrap(learner), some_tasks())
        require(torch.equal(first, again), "predictions with equal draws differ")
        if net is not None and before is not None:
            require_unchanged(net, before, "the learner's network")


def calibrates_each_task_by_itself(subject: CalibrationSubject) -> None:
    """Predicts a task in the same way alone and with others; draws by its place in the list."""

    def predict(learner: Learner, tasks: TaskBatch, first: int) -> torch.Tensor:
        given = tasks.support_x, tasks.support_y, tasks.query_x
        if isinstance(learner, DrawingLearner):
            return learner.predict_from(first, *given)
        return learner.predict(*given)

    for learner in subject.learners():
        require_tasks_apart(functools.partial(predict, subject.wrap(learner)), some_tasks())


def predicts_queries_alone_unless_transductive(subject: CalibrationSubject) -> str:
    """Predicts a query alike whatever the others are, unless it says that it is transductive."""
    if subject.kind.transductive:
        return "transductive"
    for learner in subject.learners("support"):
        predict = functools.partial(predicted, subject.wrap(learner))
        require_queries_alone(predict, some_tasks())
    return ""


def changes_predictions(subject: CalibrationSubject) -> None:
    """Changes the predictions of at least one learner."""
    tasks = some_tasks()

    def changed(learner: Learner) -> bool:
        calibrated = subject.wrap(learner, quick=False)
        return not torch.equal(predicted(learner, tasks), predicted(calibrated, tasks))

    require(
        any(changed(one) for one in subject.learners()),
        "predictions are equal to those without it; choose defaults that have an effect",
    )


SUBJECTS = {"calibration": CalibrationSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "calibration": (
        describes_itself,
        imports_only_what_plug_ins_may,
        says_whom_it_serves,
        predicts_every_task,
        calibrates_each_task_by_itself,
        predicts_queries_alone_unless_transductive,
        changes_predictions,
    )
}
