"""BiDf-MKD: meta-learning from black-box teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import Divergence, distillation_loss
from baselines.recovery._black_box import BlackBox
from baselines.recovery._black_box_recovery import recover, recovery_objective
from baselines.recovery._generator import fresh_generator
from baselines.recovery._recovered_tasks import (
    Params,
    RecoveredTasks,
    refusal,
    scaled,
    student_logits,
)
from bench.contract import (
    Backbone,
    Budget,
    Config,
    FitContext,
    MetaLearner,
    Method,
    ProtocolConstants,
    TaskShape,
)
from bench.training.meta_training import meta_train

ADVERSARIAL_SHARE = 4_000 / 60_000


class Counts(NamedTuple):
    """The counts of `BidfMkdConfig` in one fit."""

    images_per_class: int
    generation_steps: int
    directions: int
    generator_width: int
    boundary_start: int
    patience: int


class BidfMkdConfig(Config):
    """Constants; None takes the released count, made smaller for budgets under 60,000 iterations.

    That is times the fourth root of the budget's share, `patience` times the square root.
    """

    images_per_class: int | None = Field(None, ge=1)
    """images of each class in a support set, and in a query set, that a visit recovers. Released:
    30; at least k_shot + 1 in both together are made."""
    generation_steps: int | None = Field(None, ge=1)
    """Adam steps on the generator for one set. Released: 200."""
    directions: int | None = Field(None, ge=1)
    """directions of a zero-order estimate, each one query an image. Released: 100."""
    smoothing: float = Field(0.005, gt=0)
    """length of a step in a direction. Released. Unit: normalised pixels"""
    generator_lr: float = Field(1e-3, gt=0)
    """Adam's rate on the generator and its latents. Released."""
    generator_width: int | None = Field(None, ge=1)
    """channels of the generator's last hidden layer. Released: 64."""
    latent_size: int = Field(256, ge=1)
    """length of a latent vector. Released."""
    boundary_weight: float = Field(1.0, ge=0)
    """factor of the boundary term in recovering a query set. Released."""
    boundary_start: int | None = Field(None, ge=1)
    """meta-iteration from which query sets are boundary sets; None: 1/15 of the meta-iterations,
    which is the released 4,000 of 60,000"""
    distillation_steps: int = Field(10, ge=0)
    """steps of the inner loop of the bi-level distillation. Released."""
    distillation_inner_lr: float = Field(0.01, gt=0)
    """SGD's rate in that inner loop. Released."""
    kd: Divergence = "kl"
    """the divergence of the distillation; `as_published` is hazard H14"""
    patience: int | None = Field(None, ge=1)
    """meta-iterations without a better pseudo-query accuracy until a teacher is visited. Released:
    200."""
    memory_per_class: int = Field(600, ge=2)
    """images of a class that the task memory keeps. Released: 20 sets of 30."""
    gallery_images_per_class: int = Field(2, ge=0)
    """recovered images of each class that the log gets at start, middle and end. Ours."""

    def counts(self, budget: Budget, shape: TaskShape) -> Counts:
        """Return the counts of a fit, with images enough for its tasks."""
        total = budget.meta_iterations
        wanted = self.images_per_class or scaled(30, total, 4)
        return Counts(
            images_per_class=max(wanted, -(-(shape.k_shot + 1) // 2)),
            generation_steps=self.generation_steps or scaled(200, total, 4),
            directions=self.directions or scaled(100, total, 4),
            generator_width=self.generator_width or scaled(64, total, 4),
            boundary_start=self.boundary_start or max(1, round(total * ADVERSARIAL_SHARE)),
            patience=self.patience or scaled(200, total, 2),
        )


class BidfMkd(Method[BidfMkdConfig]):
    """Bi-level data-free meta knowledge distillation from black-box teachers.

    Hu et al., "Learning to Learn from APIs: Black-Box Data-Free Meta-Learning", ICML 2023,
    arXiv 2305.18413.

    A visit to a teacher recovers images of its classes through a generator that is trained anew,
    its gradient estimated from answers to queries alone. The meta-model is distilled in an inner
    loop on a support set and, through it, in an outer step on a query set, whose images the
    adapted model still labels as the teacher does but far from its probabilities: near its
    boundary. All images go to a memory, and between visits the meta-model is trained on tasks that
    mix the memory's classes.

    As in the released code: generator, estimator, both losses' form, constants, the plateau that
    asks for the next visit, the random start of the meta-model. Departures: what a teacher answers
    are probabilities; the boundary term compares probabilities, in the released code logits; of a
    recovery's steps the one of the least mean loss is kept; teachers are visited in rounds, not
    drawn with replacement; a visit's distillation is an Adam step of its own, not one of the four
    tasks of a meta-batch; small budgets recover less.
    """

    name = "bidf_mkd"
    knowledge = "inversion"
    learner_needs = MetaLearner
    fit_depends_on = frozenset({"n_way", "k_shot", "learner"})
    validates = True
    Config = BidfMkdConfig
    presets: ClassVar = {"released": {}, "as_published": {"kd": "as_published"}}

    @classmethod
    def in_force(
        cls,
        config: BidfMkdConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the counts that are scaled to the budget."""
        return config.counts(budget, shape)._asdict()

    def skip(self, context: FitContext[BidfMkdConfig]) -> str | None:
        """Skip pools whose images or numbers of classes do not suit one meta-model."""
        return refusal(context)

    def fit(self, context: FitContext[BidfMkdConfig]) -> dict[str, Tensor]:
        """Recover images, distil, meta-train, and return the meta-model's state."""
        net = context.build_net(context.generator("initialisation"))
        return meta_train(context, net, BlackBoxTasks(context, net))


class BlackBoxTasks(RecoveredTasks):
    """The visits of BiDf-MKD; see `BidfMkd`. Sees of the pool what `BlackBox` shows."""

    def __init__(self, context: FitContext[BidfMkdConfig], net: Backbone) -> None:
        self.config = config = context.config
        self.counts = config.counts(context.budget, context.shape)
        super().__init__(
            context,
            net,
            self.counts.patience,
            config.memory_per_class,
            config.gallery_images_per_class,
        )
        self.boxes = [BlackBox(teacher, context.log) for teacher in context.pool]
        self.streams["directions"] = context.generator("directions")

    def visit(self, iteration: int) -> dict[str, Tensor]:
        """Recover a support and a query set of one teacher, and distil; see `RecoveredTasks`."""
        (number,) = self.rounds.take(1)
        box, config = self.boxes[number], self.config
        support, support_loss = self._recover(box)
        images = self.scale.normalised(support)
        adapted = adapt_to_answers(
            self.net,
            self.parameters,
            images,
            box(images),
            config.distillation_steps,
            config.distillation_inner_lr,
            config.kd,
        )
        student = None
        if iteration >= self.counts.boundary_start:
            frozen = {name: value.detach() for name, value in adapted.items()}
            student = partial(student_logits, self.net, frozen, n_classes=len(box))
        query, query_loss = self._recover(box, student)
        images = self.scale.normalised(query)
        logits = student_logits(self.net, adapted, images, len(box))
        loss = distillation_loss(logits, box(images), config.kd)
        gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        self.apply(dict(zip(self.parameters, gradients, strict=True)))
        for pixels in (support, query):
            self.memory.add(pixels, box.class_ids, box.class_names)
        return {
            "support_recovery": support_loss,
            "query_recovery": query_loss,
            "distillation": loss.detach(),
        }

    def _recover(
        self, box: BlackBox, student: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        config, counts, size = self.config, self.counts, self.context.net.image_size
        labels = torch.arange(len(box), device=self.context.device)
        labels = labels.repeat_interleave(counts.images_per_class)
        latents = self.streams["latents"]
        net = fresh_generator(
            config.latent_size, counts.generator_width, size, latents, self.context.device
        )
        self.context.log.count("pseudo_images", counts.generation_steps * len(labels))
        return recover(
            net,
            torch.randn((len(labels), config.latent_size), generator=latents).to(labels.device),
            recovery_objective(box, labels, student, config.boundary_weight),
            self.scale,
            counts.generation_steps,
            counts.directions,
            config.smoothing,
            config.generator_lr,
            self.streams["directions"],
        )


def adapt_to_answers(
    net: Backbone,
    params: Params,
    images: Tensor,
    answers: Tensor,
    steps: int,
    lr: float,
    kind: Divergence,
) -> dict[str, Tensor]:
    """Return parameters after SGD on the distillation loss; differentiable in those given.

    Args:
        net: the meta-model.
        params: where to start.
        images: (B, 3, H, W), normalised.
        answers: the teacher's log-probabilities (B, n).
        steps: of the inner loop.
        lr: its rate.
        kind: see `Divergence`.
    """
    params = dict(params)
    for _ in range(steps):
        logits = student_logits(net, params, images, answers.shape[1])
        loss = distillation_loss(logits, answers, kind)
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {
            name: value - lr * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
    return params
