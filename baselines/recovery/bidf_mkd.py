"""BiDf-MKD: meta-learning from black-box teachers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import Divergence, distillation_loss
from baselines.recovery._black_box import BlackBox
from baselines.recovery._black_box_recovery import Recovery, recovery_objective
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

    A visit to a teacher recovers images of its classes with a newly initialised generator, whose
    gradient is estimated from the teacher's answers to queries. The meta-model is distilled in an
    inner loop on a support set and, through it, in an outer step on a boundary query set: images
    that the adapted model labels as the teacher does, but with probabilities far from the
    teacher's. All images go to a memory; between visits, the meta-model is trained on tasks that
    mix classes from the memory.

    As in the released code: generator, estimator, form of both losses, constants, the plateau that
    triggers the next visit, random initialisation of the meta-model. Departures: teachers answer
    with probabilities; the boundary term compares probabilities (released: logits); of the steps of
    a recovery, the one with the lowest mean loss is kept; teachers are visited in rounds, not drawn
    with replacement; the distillation of a visit is a separate Adam step, not one of the four tasks
    of a meta-batch; small budgets recover fewer images.
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
        self._number: int | None = None
        self._answers: Tensor | None = None
        self._recovered: list[tuple[Tensor, Tensor]] = []
        self._recovery: Recovery | None = None

    def visit(self, iteration: int) -> Generator[None, None, dict[str, Tensor]]:
        """Recover a support and a query set of one teacher, and distil; see `RecoveredTasks`."""
        if self._number is None:
            (self._number,) = self.rounds.take(1)
        box, config = self.boxes[self._number], self.config
        support, support_loss = yield from self._recover(box, 0)
        images = self.scale.normalised(support)
        if self._answers is None:
            self._answers = box(images)
        adapted = adapt_to_answers(
            self.net,
            self.parameters,
            images,
            self._answers,
            config.distillation_steps,
            config.distillation_inner_lr,
            config.kd,
        )
        student = None
        if iteration >= self.counts.boundary_start:
            frozen = {name: value.detach() for name, value in adapted.items()}
            student = partial(student_logits, self.net, frozen, n_classes=len(box))
        query, query_loss = yield from self._recover(box, 1, student)
        images = self.scale.normalised(query)
        logits = student_logits(self.net, adapted, images, len(box))
        loss = distillation_loss(logits, box(images), config.kd)
        gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        self.apply(dict(zip(self.parameters, gradients, strict=True)))
        for pixels in (support, query):
            self.memory.add(pixels, box.class_ids, box.class_names)
        self._number, self._answers, self._recovered = None, None, []
        return {
            "support_recovery": support_loss,
            "query_recovery": query_loss,
            "distillation": loss.detach(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit, within a visit as well."""
        own = {
            "number": self._number,
            "answers": self._answers,
            "recovered": [list(pair) for pair in self._recovered],
            "recovery": self._recovery and self._recovery.state_dict(),
        }
        return {**super().state_dict(), "visit": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state)
        own, device = state["visit"], self.context.device
        self._number = own["number"]
        self._answers = None if own["answers"] is None else own["answers"].to(device)
        self._recovered = [(x.to(device), least.to(device)) for x, least in own["recovered"]]
        if own["recovery"] is not None and self._number is not None:
            self._recovery = self._begun(self.boxes[self._number], torch.Generator())
            self._recovery.load_state_dict(own["recovery"])

    def _recover(
        self, box: BlackBox, place: int, student: Callable[[Tensor], Tensor] | None = None
    ) -> Generator[None, None, tuple[Tensor, Tensor]]:
        """Return the pixels of a visit's first or second set (`place` 0 or 1), and their loss."""
        if place < len(self._recovered):
            return self._recovered[place]
        counts, labels = self.counts, self._labels(box)
        recovery = self._recovery or self._begun(box, self.streams["latents"])
        if self._recovery is None:
            self.context.log.count("pseudo_images", counts.generation_steps * len(labels))
        self._recovery = recovery
        objective = recovery_objective(box, labels, student, self.config.boundary_weight)
        estimate = counts.directions, self.config.smoothing, self.streams["directions"]
        while recovery.step < counts.generation_steps:
            recovery.advance(objective, *estimate)
            yield
        self._recovered.append((recovery.pixels, recovery.least))
        self._recovery = None
        return self._recovered[place]

    def _labels(self, box: BlackBox) -> Tensor:
        labels = torch.arange(len(box), device=self.context.device)
        return labels.repeat_interleave(self.counts.images_per_class)

    def _begun(self, box: BlackBox, latents: torch.Generator) -> Recovery:
        """Return a recovery of a generator and latents that are newly drawn."""
        config, device = self.config, self.context.device
        width, size = self.counts.generator_width, self.context.net.image_size
        net = fresh_generator(config.latent_size, width, size, latents, device)
        drawn = torch.randn((len(self._labels(box)), config.latent_size), generator=latents)
        return Recovery(net, drawn.to(device), self.scale, config.generator_lr)


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
