"""What the distilling methods share: their settings, and the training of students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from baselines.centroids.ensemble_centroids import differing_normalisation
from baselines.distillation._network_training import NetworkTraining
from baselines.distillation._student import Distiller, StudentSettings
from baselines.distillation._targets import TeacherEnsemble
from bench.contract import (
    Backbone,
    BnMode,
    Budget,
    EmbeddingLearner,
    FitContext,
    Learner,
    MetaLearner,
    Method,
    ProtocolConstants,
    TaskShape,
    Teacher,
)
from bench.training.initialisation import Initialisation, fits_body, initial_net


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


class StudentTraining(NetworkTraining[DistillationConfig]):
    """Trains the students of a fit, each on the pseudo images of its teachers.

    Args:
        context: what the method was given.
        teachers: the teachers, each of which is inverted.
        groups: for each student the numbers of its teachers.
        embedding: see `TeacherEnsemble`.
    """

    def __init__(
        self,
        context: FitContext[DistillationConfig],
        teachers: Sequence[Teacher],
        groups: Sequence[Sequence[int]],
        embedding: tuple[EmbeddingLearner, int] | None = None,
    ) -> None:
        self._groups, self._embedding = groups, embedding
        total = context.config.n_steps(context.budget.meta_iterations)
        super().__init__(context, teachers, len(groups), max(1, total // len(groups)))

    def start(self, number: int, first: int) -> tuple[Backbone, Distiller]:
        """Return a student at its start and its distillation."""
        context, group = self.context, self._groups[number]
        config, net = context.config, self._starting_net()
        return net, Distiller(
            TeacherEnsemble(
                [self.teachers[i] for i in group],
                config,
                config.soft_label_weight > 0,
                context.log,
                self._embedding,
            ),
            torch.cat([self.images[i] for i in group]),
            net,
            config,
            self.n_steps,
            context.generator(f"student {number}"),
            context.log,
            first,
        )

    def _starting_net(self) -> Backbone:
        context = self.context
        fits = any(fits_body(teacher.spec, context.net) for teacher in context.pool)
        wanted: Initialisation = context.config.initialisation if fits else "random"
        return initial_net(context, wanted)
