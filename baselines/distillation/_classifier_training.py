"""A fit that makes pseudo images of all teachers, then trains networks on their classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from baselines.distillation._network_training import NetworkTraining
from baselines.distillation._pseudo_classifier import (
    ClassifierSettings,
    Counter,
    PseudoClassifier,
    pseudo_classes,
)
from bench.contract import Backbone, FitContext, Teacher


class ClassifierTraining(NetworkTraining[ClassifierSettings]):
    """Trains each network on the pseudo images of all teachers.

    Args:
        context: what the method was given.
        teachers: the teachers, each of which is inverted.
        networks: of each network, what is done against the style of a teacher's images.
    """

    def __init__(
        self,
        context: FitContext[ClassifierSettings],
        teachers: Sequence[Teacher],
        networks: Sequence[Counter],
    ) -> None:
        self._networks = networks
        n_steps = context.config.n_steps(context.budget.meta_iterations)
        super().__init__(context, teachers, len(networks), n_steps)

    def start(self, number: int, first: int) -> tuple[Backbone, PseudoClassifier]:
        """Return a network of random weights and its training on the classes of all teachers."""
        context = self.context
        net = context.build_net(context.generator(f"network {number}"))
        return net, PseudoClassifier(
            net,
            self._networks[number],
            torch.cat(list(self.images)),
            *pseudo_classes(self.teachers, self.images),
            context.config,
            self.n_steps,
            context.generator(f"views {number}"),
            context.log,
            first,
        )
