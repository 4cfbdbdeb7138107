"""FREE: a meta-generator that adapts to a teacher in five steps, and gradient alignment."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import distillation_loss
from baselines.recovery._generated_tasks import (
    GeneratedTasks,
    GeneratorConfig,
    GeneratorMethod,
    recovery_losses,
)
from baselines.recovery._gradient_alignment import FastOptimiser, sequential_displacement
from baselines.recovery._recovered_tasks import Params, student_logits
from bench.contract import FitContext
from bench.training.initialisation import initial_net
from bench.training.meta_training import meta_train


class FreeConfig(GeneratorConfig):
    """Constants; None takes the released count, made smaller for budgets under 60,000 iterations.

    That is times the fourth root of the budget's share.
    """

    adversarial_weight: float = Field(1.0, ge=0)
    """factor of the divergence between meta-model and teacher that recovery raises where both name
    the same class. Released."""
    fast_optimiser: FastOptimiser = "adam"
    """what descends the teachers' distillation losses one after the other: a fresh Adam each
    visit, as released, or the SGD that the analysis of gradient alignment assumes"""


class Free(GeneratorMethod[FreeConfig]):
    """Meta-generator adapted to each teacher in five steps, and gradient alignment across teachers.

    Wei et al., "FREE: Faster and Better Data-Free Meta-Learning", CVPR 2024, arXiv 2405.00984.

    Faster: one meta-generator serves all teachers; five Adam steps adapt a copy of it to a teacher,
    and the gradients at the ends of a visit's adaptations train the meta-generator (first-order
    MAML). Better: the meta-model is distilled from the visited teachers one after the other, and
    the total displacement of its weights gives one outer step (as in Reptile), which to second
    order aligns the teachers' gradients. All images go to a memory; between visits, the meta-model
    is trained on tasks that mix classes from the memory.

    As in the released code: generator, form of the losses, constants, the adversarial term, the
    plateau that triggers the next visit, random initialisation. Departures: the images of a visit
    are those with the lowest loss (released: of the last of the five steps), and those of all its
    teachers go to the memory (released: only the last teacher's); teachers are visited in rounds,
    not drawn with replacement; a meta-batch has four tasks, not ten; the aligned step has its own
    Adam state, for which the released factor of 67 has no meaning; small budgets have a smaller
    generator and a shorter warm-up.
    """

    name = "free"
    Config = FreeConfig
    presets: ClassVar = {"released": {}, "as_published": {"kd": "as_published"}}

    def fit(self, context: FitContext[FreeConfig]) -> dict[str, Tensor]:
        """Recover images, distil, meta-train, and return the meta-model's state."""
        net = initial_net(context, context.config.initialisation)
        return meta_train(context, net, AlignedTasks(context, net))


class AlignedTasks(GeneratedTasks[FreeConfig]):
    """The visits of FREE; see `Free`."""

    def visit(self, iteration: int) -> Generator[None, None, dict[str, Tensor]]:
        """Recover images of some teachers, distil with aligned gradients; see `RecoveredTasks`."""
        yield from self.warm_up()
        context, config = self.context, self.config
        teachers = self.next_teachers()
        adapted = self.recover(teachers, config.adversarial_weight)
        losses = [
            self._distillation(*self.remember(teacher, one))
            for teacher, one in zip(teachers, adapted, strict=True)
        ]
        displacement, met = sequential_displacement(
            self.parameters, losses, context.protocol.outer_lr, config.fast_optimiser
        )
        self.apply(displacement)
        return {**recovery_losses(adapted), "distillation": torch.stack(met).mean()}

    def _distillation(self, images: Tensor, answers: Tensor) -> Callable[[Params], Tensor]:
        def loss_of(params: Params) -> Tensor:
            logits = student_logits(self.net, params, images, answers.shape[1])
            return distillation_loss(logits, answers, self.config.kd)

        return loss_of
