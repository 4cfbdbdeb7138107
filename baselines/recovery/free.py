"""FREE: a meta-generator that adapts to a teacher in five steps, and gradient alignment."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import Divergence, agreeing, distillation_loss
from baselines.recovery._generator import fresh_generator
from baselines.recovery._gradient_alignment import FastOptimiser, sequential_displacement
from baselines.recovery._meta_generator import Adapted, MetaGenerator, adapt
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
    Need,
    ProtocolConstants,
    TaskShape,
    Teacher,
)
from bench.inversion.losses import bn_statistics_loss
from bench.learners.batching import channels_last
from bench.learners.resized import resize
from bench.nets.norm import Norm, RecordingNorm, running_norm
from bench.training.initialisation import initial_net
from bench.training.meta_training import meta_train


class Counts(NamedTuple):
    """The counts of `FreeConfig` in one fit."""

    images_per_class: int
    generator_width: int
    warmup: int


class FreeConfig(Config):
    """Constants; None takes the released count, made smaller for budgets under 60,000 iterations.

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
    adversarial_weight: float = Field(1.0, ge=0)
    """factor of the divergence between meta-model and teacher that recovery raises where both name
    the same class. Released."""
    bn_weight: float = Field(0.0, ge=0)
    """factor of the distance to the teacher's batch norm statistics. Released: 0."""
    fast_optimiser: FastOptimiser = "adam"
    """what descends the teachers' distillation losses one after the other: a fresh Adam each
    visit, as released, or the SGD that the analysis of gradient alignment assumes"""
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


class Free(Method[FreeConfig]):
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
    knowledge = "inversion"
    learner_needs = MetaLearner
    fit_depends_on = frozenset({"n_way", "k_shot", "learner"})
    validates = True
    Config = FreeConfig
    presets: ClassVar = {"released": {}, "as_published": {"kd": "as_published"}}

    @classmethod
    def in_force(
        cls,
        config: FreeConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the counts that are scaled to the budget."""
        names = ("images_per_class", "generator_width", "warmup")
        return dict(zip(names, config.counts(budget, shape), strict=True))

    @classmethod
    def needs_of(cls, config: FreeConfig) -> frozenset[Need]:
        """Batch norm statistics only where they have a weight."""
        return frozenset({"bn_statistics"}) if config.bn_weight else frozenset()

    def skip(self, context: FitContext[FreeConfig]) -> str | None:
        """Skip pools whose images or numbers of classes do not suit one meta-model."""
        return refusal(context)

    def fit(self, context: FitContext[FreeConfig]) -> dict[str, Tensor]:
        """Recover images, distil, meta-train, and return the meta-model's state."""
        net = initial_net(context, context.config.initialisation)
        return meta_train(context, net, AlignedTasks(context, net))


class AlignedTasks(RecoveredTasks):
    """The visits of FREE; see `Free`."""

    def __init__(self, context: FitContext[FreeConfig], net: Backbone) -> None:
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

    def visit(self, iteration: int) -> Generator[None, None, dict[str, Tensor]]:
        """Recover images of some teachers, distil with aligned gradients; see `RecoveredTasks`."""
        while self.warmup:
            self.warmup -= 1
            self._recover(adversarial=False)
            yield
        context, config = self.context, self.config
        teachers, adapted = self._recover(adversarial=True)
        losses = []
        for teacher, one in zip(teachers, adapted, strict=True):
            images = self.scale.normalised(one.pixels)
            with torch.no_grad():
                answers = F.log_softmax(_logits(teacher, images), 1)
            context.log.count("teacher_forward_images", len(images))
            losses.append(self._distillation(images, answers))
            self.memory.add(one.pixels, teacher.class_ids, teacher.class_names)
        displacement, met = sequential_displacement(
            self.parameters, losses, context.protocol.outer_lr, config.fast_optimiser
        )
        self.apply(displacement)
        first = torch.stack([one.losses[0] for one in adapted]).mean()
        last = torch.stack([one.losses.min() for one in adapted]).mean()
        return {
            "recovery_start": first,
            "recovery": last,
            "distillation": torch.stack(met).mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit."""
        own = {"meta_generator": self.meta_generator.state_dict(), "warmup": self.warmup}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state)
        self.meta_generator.load_state_dict(state["meta_generator"])
        self.warmup = int(state["warmup"])

    def _recover(self, adversarial: bool) -> tuple[list[Teacher], list[Adapted]]:
        """Adapt to the next teachers and train the meta-generator on the adaptations."""
        context, config = self.context, self.config
        pool = context.pool
        teachers = [pool[i] for i in self.rounds.take(min(config.teachers_per_visit, len(pool)))]
        adapted = []
        for teacher in teachers:
            labels = torch.arange(len(teacher.class_ids), device=context.device)
            labels = labels.repeat_interleave(self._images_per_class)
            size = (len(labels), config.latent_size)
            latents = torch.randn(size, generator=self.streams["latents"]).to(labels.device)
            loss = self._recovery_loss(teacher, labels, adversarial)
            generator, lr = self.meta_generator.generator, config.generator_lr
            adapted.append(
                adapt(generator, latents, loss, config.adaptation_steps, lr, config.latent_lr)
            )
            count = config.adaptation_steps * len(labels)
            context.log.count("pseudo_images", count)
            context.log.count("teacher_forward_images", count)
        self.meta_generator.learn(adapted)
        return teachers, adapted

    def _recovery_loss(
        self, teacher: Teacher, labels: Tensor, adversarial: bool
    ) -> Callable[[Tensor], Tensor]:
        config = self.config
        params = {name: value.detach() for name, value in self.parameters.items()}

        def loss_of(pixels: Tensor) -> Tensor:
            images = self.scale.normalised(pixels)
            norm = RecordingNorm()
            logits = _logits(teacher, images, norm)
            loss = F.cross_entropy(logits, labels)
            if config.bn_weight:
                loss = loss + config.bn_weight * bn_statistics_loss(norm.layers)
            if adversarial and config.adversarial_weight:
                with torch.no_grad():
                    student = student_logits(self.net, params, images, logits.shape[1])
                gain = disagreement(student, F.log_softmax(logits, 1), config.kd)
                loss = loss - config.adversarial_weight * gain
            return loss

        return loss_of

    def _distillation(self, images: Tensor, answers: Tensor) -> Callable[[Params], Tensor]:
        def loss_of(params: Params) -> Tensor:
            logits = student_logits(self.net, params, images, answers.shape[1])
            return distillation_loss(logits, answers, self.config.kd)

        return loss_of


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


def _logits(teacher: Teacher, images: Tensor, norm: Norm = running_norm) -> Tensor:
    """Return a teacher's outputs for its own classes of images of any size."""
    x = channels_last(resize(images, teacher.spec.image_size))
    return teacher.net(x, norm)[:, : len(teacher.class_ids)]
