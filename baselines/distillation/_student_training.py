"""What the distilling methods share: pseudo images of the teachers, then one student after another.

A fit may be interrupted after any step of an inversion or of a student; what is saved there, and
the streams' states, let it go on bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from baselines.centroids.ensemble_centroids import differing_normalisation
from baselines.distillation._pseudo_views import TeacherInversions, show
from baselines.distillation._student import Distiller, StudentSettings
from baselines.distillation._targets import TeacherEnsemble
from bench.contract import (
    Backbone,
    BnMode,
    Budget,
    FitContext,
    Learner,
    MetaLearner,
    Method,
    ProtocolConstants,
    TaskShape,
    Teacher,
)
from bench.training.initialisation import Initialisation, fits_body, initial_net, zero_head

State = dict[str, Tensor]


class DistillationConfig(StudentSettings):
    """How pseudo images are made, what teachers are asked, and how students learn."""

    initialisation: Literal["random", "best_teacher"] = "random"
    """where students start, all alike; `best_teacher`: from the most accurate one whose body fits,
    from fresh weights if none does. Ours."""


DistillationT = TypeVar("DistillationT", bound=DistillationConfig)


class Distillation(Method[DistillationT]):
    """A method that distils teachers into students of the meta-model's kind."""

    knowledge = "inversion"
    default_learner = "centroids"
    needs = frozenset({"bn_statistics"})
    fit_depends_on = frozenset({"n_way"})
    Config = DistillationConfig

    @classmethod
    def in_force(
        cls,
        config: DistillationT,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the number of steps, which follows from the budget's meta-iterations."""
        return {"steps": config.n_steps(budget.meta_iterations)}

    def skip(self, context: FitContext[DistillationT]) -> str | None:
        """All teachers look at the same pixels, so these must be normalised alike."""
        return differing_normalisation(self.teachers_used(context))

    @classmethod
    def bn_of(
        cls, config: DistillationT, learner: type[Learner], protocol: ProtocolConstants
    ) -> BnMode:
        """Return the protocol's mode; of a learner that is never meta-trained, `running`."""
        return protocol.bn if issubclass(learner, MetaLearner) else "running"

    def learner(self, context: FitContext[DistillationT], fitted: Mapping[str, Tensor]) -> Learner:
        """Return the cell's learner, in the mode of batch norm that `bn_of` says."""
        bn = self.bn_of(context.config, context.learner_class, context.protocol)
        return context.make_learner(fitted, bn)


class StudentTraining:
    """Makes the pseudo images and trains the students of a fit.

    Args:
        context: what the method was given; its config is a `DistillationConfig`.
        teachers: the teachers, each of which is inverted.
        groups: for each student the numbers of its teachers.

    Attributes:
        images: the pseudo images of each teacher, once it runs.
    """

    def __init__(
        self,
        context: FitContext[DistillationConfig],
        teachers: Sequence[Teacher],
        groups: Sequence[Sequence[int]],
    ) -> None:
        self._context, self._teachers, self._groups = context, teachers, groups
        generator = context.generator("pseudo images")
        self._inversions = TeacherInversions(context, teachers, generator)
        self.images: list[Tensor] = []
        self._finished: list[State] = []
        self._current: dict[str, Any] | None = None
        total = context.config.n_steps(context.budget.meta_iterations)
        self._steps = max(1, total // len(groups))
        self._inversion_steps = len(teachers) * context.config.inversion_steps
        if context.resume is not None:
            self._restore(context.resume)

    def run(self) -> list[State]:
        """Return the state of each student, its head at zero."""
        self.images = self._inversions.run(self._note, lambda step: self._offer(step, lambda: None))
        for teacher, own in zip(self._teachers, self.images, strict=True):
            show(self._context.log, teacher, own)
        for number in range(len(self._finished), len(self._groups)):
            self._finished.append(self._teach(number))
            self._current = None
        return self._finished

    def _teach(self, number: int) -> State:
        context, group, first = self._context, self._groups[number], self._done(number)
        config = context.config
        net = self._starting_net()
        distiller = Distiller(
            TeacherEnsemble(
                [self._teachers[i] for i in group],
                config,
                config.soft_label_weight > 0,
                context.log,
            ),
            torch.cat([self.images[i] for i in group]),
            net,
            config,
            self._steps,
            context.generator(f"student {number}"),
            context.log,
            first,
        )
        if self._current is not None:
            distiller.load_state_dict(self._current)
        distiller.run(
            lambda step: self._note(first + step),
            lambda step: self._offer(first + step, distiller.state_dict),
        )
        zero_head(net)
        return state_of(net)

    def _starting_net(self) -> Backbone:
        context = self._context
        fits = any(fits_body(teacher.spec, context.net) for teacher in context.pool)
        wanted: Initialisation = context.config.initialisation if fits else "random"
        return initial_net(context, wanted)

    def _done(self, number: int) -> int:
        """Return the steps of all before a student."""
        return self._inversion_steps + number * self._steps

    def _note(self, step: int) -> None:
        self._context.log.progress(step, self._done(len(self._groups)))

    def _offer(self, step: int, student: Callable[[], dict[str, Any] | None]) -> None:
        """Offer a checkpoint: pseudo images, finished students, and the one under way."""
        self._context.checkpoint(
            step,
            lambda: {
                "inversions": self._inversions.state_dict(),
                "finished": self._finished,
                "current": student(),
            },
        )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._inversions.load_state_dict(saved["inversions"])
        self._finished, self._current = list(saved["finished"]), saved["current"]


def state_of(net: Backbone) -> State:
    """Return copies of a net's parameters and buffers."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
