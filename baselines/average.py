"""The mean of the teachers' weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bench.contract import Config, FitContext, Learner, Method
from bench.learners.initialisation import HeadPolicy, average_net, fits_body


class AverageConfig(Config):
    """What becomes of the heads."""

    head: HeadPolicy = "average"
    """`average` them as well (as the paper's baseline does), start at `zero`, or `drop` them for
    a fresh one; the latter two serve any n_way"""


class Average(Method):
    """A meta-model whose every entry, BN statistics included, is the mean over the teachers.

    A baseline of Hu et al., "Architecture, Dataset and Model-Scale Agnostic Data-free
    Meta-Learning", CVPR 2023, arXiv 2303.11183; also where its released scripts start
    meta-training. Head policies other than `average` are ours.
    """

    name = "average"
    knowledge = "parameters"
    learners = ("maml", "anil", "protonet", "centroids")
    needs = frozenset({"same_architecture"})
    fit_depends_on = frozenset({"n_way"})
    Config = AverageConfig

    def skip(self, context: FitContext) -> str | None:
        """Weights are averaged entry by entry, so every teacher must fit the meta-model."""
        net = context.net
        for teacher in context.pool:
            if not fits_body(teacher.spec, net):
                return (
                    f"teacher {teacher.name} is a {teacher.spec.architecture} at "
                    f"{teacher.spec.image_size} px, the meta-model a {net.architecture} at "
                    f"{net.image_size} px"
                )
            if context.config.head == "average" and teacher.spec.n_classes != net.n_classes:
                return (
                    f"the head of teacher {teacher.name} has {teacher.spec.n_classes} outputs, "
                    f"n_way is {net.n_classes}; set head to zero or drop"
                )
        return None

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Average."""
        return dict(average_net(context, context.config.head).state_dict())

    def learner(self, context: FitContext, fitted: Mapping[str, Tensor]) -> Learner:
        """Return the cell's learner around the average."""
        return context.make_learner(fitted)
