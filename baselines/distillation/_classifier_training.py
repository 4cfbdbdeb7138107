"""A fit that makes pseudo images of all teachers, then trains networks on their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
        start: the state of a meta-model that all start from; None: random weights.
    """

    def __init__(
        self,
        context: FitContext[ClassifierSettings],
        teachers: Sequence[Teacher],
        networks: Sequence[Counter],
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._networks, self._start = networks, start
        n_steps = context.config.n_steps(context.budget.meta_iterations)
        super().__init__(context, teachers, len(networks), n_steps)

    def start(self, number: int, first: int) -> tuple[Backbone, PseudoClassifier]:
        """Return a network at its start and its training on the classes of all teachers."""
        context = self.context
        net = context.build_net(context.generator(f"network {number}"))
        if self._start is not None:
            net.load_state_dict({k: v.to(context.device) for k, v in self._start.items()})
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
