"""A fit that makes pseudo images of all teachers, then trains networks on their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.distillation._pseudo_classifier import (
    ClassifierSettings,
    Counter,
    PseudoClassifier,
    pseudo_classes,
)
from baselines.distillation._pseudo_views import TeacherInversions, show
from baselines.distillation._student_training import State, state_of
from bench.contract import FitContext, Teacher
from bench.training.initialisation import zero_head


class ClassifierTraining:
    """Makes the pseudo images and trains one network after another; goes on from any step.

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
        self._context, self._teachers, self._networks = context, teachers, networks
        generator = context.generator("pseudo images")
        self._inversions = TeacherInversions(context, teachers, generator)
        self._finished: list[State] = []
        self._current: dict[str, Any] | None = None
        self._steps = context.config.n_steps(context.budget.meta_iterations)
        self._inversion_steps = len(teachers) * context.config.inversion_steps
        if context.resume is not None:
            self._restore(context.resume)

    def run(self) -> list[State]:
        """Return the state of each network, its head at zero."""
        images = self._inversions.run(self._note, lambda step: self._offer(step, lambda: None))
        for teacher, own in zip(self._teachers, images, strict=True):
            show(self._context.log, teacher, own)
        for number in range(len(self._finished), len(self._networks)):
            self._finished.append(self._teach(number, images))
            self._current = None
        return self._finished

    def _teach(self, number: int, images: Sequence[Tensor]) -> State:
        context, first = self._context, self._inversion_steps + number * self._steps
        net = context.build_net(context.generator(f"network {number}"))
        training = PseudoClassifier(
            net,
            self._networks[number],
            torch.cat(list(images)),
            *pseudo_classes(self._teachers, images),
            context.config,
            self._steps,
            context.generator(f"views {number}"),
            context.log,
            first,
        )
        if self._current is not None:
            training.load_state_dict(self._current)
        training.run(
            lambda step: self._note(first + step),
            lambda step: self._offer(first + step, training.state_dict),
        )
        zero_head(net)
        return state_of(net)

    def _note(self, step: int) -> None:
        total = self._inversion_steps + len(self._networks) * self._steps
        self._context.log.progress(step, total)

    def _offer(self, step: int, network: Callable[[], dict[str, Any] | None]) -> None:
        """Offer a checkpoint: pseudo images, finished networks, and the one under way."""
        self._context.checkpoint(
            step,
            lambda: {
                "inversions": self._inversions.state_dict(),
                "finished": self._finished,
                "current": network(),
            },
        )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._inversions.load_state_dict(saved["inversions"])
        self._finished, self._current = list(saved["finished"]), saved["current"]
