"""Visits that recover images of teachers through one meta-generator: what FREE and TGR share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import Divergence, agreeing
from baselines.recovery._generator import fresh_generator
from baselines.recovery._meta_generator import Adapted, MetaGenerator, adapt
from baselines.recovery._recovered_tasks import (
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
    Need,
    ProtocolConstants,
    TaskShape,
    Teacher,
)
from bench.inversion.losses import bn_statistics_term
from bench.learners.batching import channels_last
from bench.nets.base import resize
from bench.nets.norm import Norm, RecordingNorm, running_norm


class Counts(NamedTuple):
    """The counts of `GeneratorConfig` in one fit."""

    images_per_class: int
    generator_width: int
    warmup: int


class GeneratorConfig(Config):
    """Constants; None takes FREE's released count, smaller for budgets under 60,000 iterations.

    That is times the fourth root of the budget's share.
    """

    images_per_class: int = Field(20, ge=1)
    """images of each class that a visit recovers from each teacher. Released; at least k_shot + 1
    are made."""
    adaptation_steps: int = Field(5, ge=1)
    """Adam steps that adapt the generator to a teacher. Released."""
    generator_lr: float = Field(1e-3, gt=0)
    """Adam's rate on the meta-generator and on its adapted copies. Released."""
    latent_lr: float = Field(1e-3, gt=0)
    """Adam's rate on the latents. Released."""
    generator_width: int | None = Field(None, ge=1)
    """channels of the generator's last hidden layer. Released: 64."""
    latent_size: int = Field(256, ge=1)
    """length of a latent vector. Released."""
    teachers_per_visit: int = Field(4, ge=1)
    """teachers that a visit recovers from. Released."""
    warmup: int | None = Field(None, ge=0)
    """visits before the first meta-iteration that train the meta-generator alone. Released: 20."""
    bn_weight: float = Field(0.0, ge=0)
    """factor of the distance to the teacher's batch norm statistics. Released: 0."""
    kd: Divergence = "kl"
    """the divergence of the distillation; `as_published` is hazard H14"""
    patience: int = Field(10, ge=1)
    """meta-iterations without a better pseudo-query accuracy until the next visit. Released."""
    memory_per_class: int = Field(400, ge=2)
    """images of a class that the task memory keeps. Released: 20 sets of 20."""
    initialisation: Literal["random", "average", "best_teacher", "auto"] = "random"
    """where the meta-model starts; see `bench/suites/protocols.py`. Released: random."""
    gallery_images_per_class: int = Field(2, ge=0)
    """recovered images of each class that the log gets at start, middle and end. Ours."""

    def counts(self, budget: Budget, shape: TaskShape) -> Counts:
        """Return the counts of a fit, with images enough for its tasks."""
        total = budget.meta_iterations
        return Counts(
            images_per_class=max(self.images_per_class, shape.k_shot + 1),
            generator_width=self.generator_width or scaled(64, total, 4),
            warmup=scaled(20, total, 4) if self.warmup is None else self.warmup,
        )


GeneratorT = TypeVar("GeneratorT", bound=GeneratorConfig)


class GeneratorMethod(Method[GeneratorT]):
    """A method that meta-trains on images recovered through a meta-generator."""

    knowledge = "inversion"
    learner_needs = MetaLearner
    fit_depends_on = frozenset({"n_way", "k_shot", "learner"})
    validates = True
    Config = GeneratorConfig

    @classmethod
    def in_force(
        cls,
        config: GeneratorT,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the counts that are scaled to the budget."""
        return config.counts(budget, shape)._asdict()

    @classmethod
    def needs_of(cls, config: GeneratorT) -> frozenset[Need]:
        """Batch norm statistics only where they have a weight."""
        return frozenset({"bn_statistics"}) if config.bn_weight else frozenset()

    def skip(self, context: FitContext[GeneratorT]) -> str | None:
        """Skip pools whose images or numbers of classes do not suit one meta-model."""
        return refusal(context)


class GeneratedTasks(RecoveredTasks, Generic[GeneratorT]):
    """A task source whose visits recover images through a meta-generator.

    Five Adam steps adapt a copy of it to a teacher, and the gradients at the ends of a visit's
    adaptations train it.

    Args:
        context: what the method was given.
        net: the meta-model, see `RecoveredTasks`.
    """

    def __init__(self, context: FitContext[GeneratorT], net: Backbone) -> None:
        self.config = config = context.config
        self._images_per_class, width, self.warmup = config.counts(context.budget, context.shape)
        super().__init__(
            context,
            net,
            config.patience,
            config.memory_per_class,
            config.gallery_images_per_class,
        )
        self.meta_generator = MetaGenerator(
            fresh_generator(
                config.latent_size,
                width,
                context.net.image_size,
                context.generator("generator"),
                context.device,
            ),
            config.generator_lr,
        )

    def warm_up(self) -> Iterator[None]:
        """Train the meta-generator alone for the visits that are left of its warm-up."""
        while self.warmup:
            self.warmup -= 1
            self.recover(self.next_teachers())
            yield

    def next_teachers(self) -> list[Teacher]:
        """Return the teachers of the next visit, where teachers are visited in rounds."""
        pool = self.context.pool
        count = min(self.config.teachers_per_visit, len(pool))
        return [pool[i] for i in self.rounds.take(count)]

    def labels(self, teacher: Teacher) -> Tensor:
        """Return the labels (n · M,) of a teacher's recovered images, class after class."""
        labels = torch.arange(len(teacher.class_ids), device=self.context.device)
        return labels.repeat_interleave(self._images_per_class)

    def recover(
        self, teachers: Sequence[Teacher], adversarial_weight: float = 0.0
    ) -> list[Adapted]:
        """Adapt to teachers and train the meta-generator on the adaptations.

        Args:
            teachers: whose images are recovered.
            adversarial_weight: factor of the divergence between meta-model and teacher that
                recovery raises where both name the same class.
        """
        context, config, adapted = self.context, self.config, []
        for teacher in teachers:
            labels = self.labels(teacher)
            size = (len(labels), config.latent_size)
            latents = torch.randn(size, generator=self.streams["latents"]).to(labels.device)
            loss = self._recovery_loss(teacher, labels, adversarial_weight)
            generator, lr = self.meta_generator.generator, config.generator_lr
            adapted.append(
                adapt(generator, latents, loss, config.adaptation_steps, lr, config.latent_lr)
            )
            count = config.adaptation_steps * len(labels)
            context.log.count("pseudo_images", count)
            context.log.count("teacher_forward_images", count)
        self.meta_generator.learn(adapted)
        return adapted

    def remember(self, teacher: Teacher, adapted: Adapted) -> tuple[Tensor, Tensor]:
        """Put a teacher's images into the memory.

        Returns:
            The images (B, 3, H, W), normalised, and the teacher's log-probabilities (B, n).
        """
        images = self.scale.normalised(adapted.pixels)
        with torch.no_grad():
            answers = F.log_softmax(teacher_logits(teacher, images), 1)
        self.context.log.count("teacher_forward_images", len(images))
        self.memory.add(adapted.pixels, teacher.class_ids, teacher.class_names)
        return images, answers

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit."""
        own = {"meta_generator": self.meta_generator.state_dict(), "warmup": self.warmup}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state)
        self.meta_generator.load_state_dict(state["meta_generator"])
        self.warmup = int(state["warmup"])

    def _recovery_loss(
        self, teacher: Teacher, labels: Tensor, adversarial_weight: float
    ) -> Callable[[Tensor], Tensor]:
        config = self.config
        params = {name: value.detach() for name, value in self.parameters.items()}

        def loss_of(pixels: Tensor) -> Tensor:
            images = self.scale.normalised(pixels)
            norm = RecordingNorm()
            logits = teacher_logits(teacher, images, norm)
            loss = F.cross_entropy(logits, labels)
            if config.bn_weight:
                loss = loss + config.bn_weight * bn_statistics_term(norm.layers, loss)
            if adversarial_weight:
                with torch.no_grad():
                    student = student_logits(self.net, params, images, logits.shape[1])
                gain = disagreement(student, F.log_softmax(logits, 1), config.kd)
                loss = loss - adversarial_weight * gain
            return loss

        return loss_of


def recovery_losses(adapted: Sequence[Adapted]) -> dict[str, Tensor]:
    """Return, for the log, the mean loss of a visit's first steps and that of its best ones."""
    return {
        "recovery_start": torch.stack([one.losses[0] for one in adapted]).mean(),
        "recovery": torch.stack([one.losses.min() for one in adapted]).mean(),
    }


def disagreement(student: Tensor, answers: Tensor, kind: Divergence) -> Tensor:
    """Return the divergence of a teacher from a constant student where both predict one class, 0-d.

    Args:
        student: logits (B, n).
        answers: the teacher's log-probabilities (B, n), differentiable.
        kind: `kl`, the divergence of the teacher from the student; `as_published`, the same with
            the teacher's probabilities in place of their logarithms (hazard H14).
    """
    given = answers if kind == "kl" else answers.exp()
    each = F.kl_div(given, F.log_softmax(student, 1), log_target=True, reduction="none").sum(1)
    return (each * agreeing(student, answers).detach()).mean()


def teacher_logits(teacher: Teacher, images: Tensor, norm: Norm = running_norm) -> Tensor:
    """Return a teacher's outputs for its own classes of images (B, 3, H, W) of any size."""
    x = channels_last(resize(images, teacher.spec.image_size))
    return teacher.net(x, norm)[:, : len(teacher.class_ids)]
