"""One student of one or more teachers: rounds of views, losses and the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.distillation._losses import feature_loss, similarity_loss, soft_label_loss
from baselines.distillation._pseudo_views import draw_views
from baselines.distillation._targets import TargetSettings, TeacherEnsemble, TeacherTargets
from bench.contract import Backbone, FitLog
from bench.learners.centroids import unit
from bench.nets.base import initialise
from bench.nets.fast.batch_blocks import batch_block
from bench.nets.norm import BlockNorm, batch_norm, batch_statistics, running_statistics

ROUND = 256
"""Steps of a round, about."""
STATISTICS_BATCH = 256
STATISTICS_VIEWS = 4 * STATISTICS_BATCH


class StudentSettings(TargetSettings):
    """How a student learns."""

    steps: int | None = Field(None, ge=1)
    """Adam steps in all; None: `steps_per_meta_iteration` for each of the budget's
    meta-iterations. Ours."""
    steps_per_meta_iteration: int = Field(15, ge=1)
    """steps for each of the budget's meta-iterations, where `steps` is None. Ours."""
    most_steps: int = Field(30_000, ge=1)
    """bound on those, for long budgets: a student has learned what it can. Ours."""
    batch: int = Field(128, ge=2)
    """views of a step. Ours."""
    passes: int = Field(16, ge=1)
    """how often a view is used; its teachers are asked once. Ours."""
    learning_rate: float = Field(1e-2, gt=0)
    """Adam's highest rate: reached after a tenth of the steps, then down along a cosine. Ours."""
    soft_label_weight: float = Field(0.0, ge=0)
    """factor of the divergence from each teacher's soft labels. Ours."""
    feature_weight: float = Field(1.0, ge=0)
    """factor of the angle between the teachers' features and a linear map of the student's. Ours"""
    similarity_weight: float = Field(1.0, ge=0)
    """factor of the distance between the teachers' and the student's similarities. Ours."""

    def n_steps(self, meta_iterations: int) -> int:
        """Return the steps for a budget of so many meta-iterations."""
        if self.steps is not None:
            return self.steps
        return min(self.most_steps, self.steps_per_meta_iteration * meta_iterations)


class Student(nn.Module):
    """A meta-model, and linear maps from its features to its teachers' answers.

    Args:
        net: the meta-model, trained in place.
        n_features: the teachers' features.
        n_logits: the teachers' logits.
        generator: CPU generator of the maps' first weights.
    """

    def __init__(
        self, net: Backbone, n_features: int, n_logits: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.net = net
        device = net.head.weight.device
        self.to_features = linear(net.n_features, n_features, device, generator)
        self.to_logits = linear(net.n_features, n_logits, device, generator)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that a step changes: all except the meta-model's own head."""
        return [p for name, p in self.named_parameters() if not name.startswith("net.head.")]


def linear(n_in: int, n_out: int, device: torch.device, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer of fresh weights from a CPU generator; torch's own draw is undone."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(n_in, n_out)
    initialise(layer, generator)
    return layer.to(device)


class Distiller:
    """Trains one student, round after round of views; goes on from any step.

    Args:
        teachers: the teachers.
        images: their pseudo images (M, 3, H, W).
        net: the student's meta-model, trained in place.
        settings: see `StudentSettings`.
        steps: Adam steps.
        generator: CPU generator of maps, views and their order.
        log: gets the losses.
        first_step: where the log's step numbers start.
    """

    def __init__(
        self,
        teachers: TeacherEnsemble,
        images: Tensor,
        net: Backbone,
        settings: StudentSettings,
        steps: int,
        generator: torch.Generator,
        log: FitLog,
        first_step: int = 0,
    ) -> None:
        self._teachers, self._images, self._settings = teachers, images, settings
        self._generator, self._log, self._first_step = generator, log, first_step
        self.student = Student(net, *teachers.widths, generator)
        self._optimiser = torch.optim.Adam(self.student.trained(), lr=settings.learning_rate)
        self._norm = FusedBatchNorm() if images.device.type == "cpu" else batch_norm
        self._mean = images.new_zeros(teachers.widths[0])
        self.steps, self.step = steps, 0
        self._done = 0
        self._round = generator.get_state()
        self._current: Tensor | None = None

    def run(self, note: Callable[[int], None], offer: Callable[[int], None]) -> None:
        """Run the remaining steps.

        Args:
            note: called after each step with the steps done.
            offer: called likewise, where the fit may be saved.
        """
        while True:
            targets = self._next_targets()
            batches = self._batches(len(targets))
            if self._current is not None:
                self._generator.set_state(self._current)
                self._current = None
            for rows in batches[self._done :]:
                self._learn(targets, rows)
                note(self.step)
                offer(self.step)
            self._done, self._round = 0, self._generator.get_state()
            if self.step == self.steps:
                break
        set_statistics(self.student.net, targets.views)

    @property
    def _round_steps(self) -> int:
        """Steps of the round under way; rounds are equally long, but for the last."""
        n_rounds = max(1, round(self.steps / ROUND))
        return min(math.ceil(self.steps / n_rounds), self.steps - self.step + self._done)

    def _next_targets(self) -> TeacherTargets:
        """Return the views of the round under way, and the teachers' answers.

        They are not saved with the fit, but made again from the state of what drew them.
        """
        settings = self._settings
        n = math.ceil(self._round_steps * settings.batch / settings.passes)
        n = max(n, settings.batch)
        teacher = self._teachers.teachers[0]
        views = draw_views(self._images, n, teacher, settings, self._generator)
        targets = self._teachers.targets(views, again=self._current is not None)
        if self.step == self._done:
            self._mean = targets.features.mean(0)
        return targets

    def _batches(self, n: int) -> list[Tensor]:
        """Return the rows of a round's batches; each pass has its own random order."""
        rows: list[Tensor] = []
        while len(rows) < self._round_steps:
            order = torch.randperm(n, generator=self._generator)
            rows += order.split(self._settings.batch)[: n // self._settings.batch]
        return rows[: self._round_steps]

    def _learn(self, targets: TeacherTargets, rows: Tensor) -> None:
        """Make one step on some rows of the targets."""
        rate = self._settings.learning_rate * schedule(self.step, self.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        losses = self._losses(targets, rows)
        self._optimiser.zero_grad(set_to_none=True)
        torch.stack([weight * loss for weight, loss in losses.values()]).sum().backward()
        self._optimiser.step()
        self.step += 1
        self._done += 1
        values = {name: loss.detach() for name, (_, loss) in losses.items()}
        self._log.scalars(self._first_step + self.step, values)

    def _losses(self, targets: TeacherTargets, rows: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of each loss by name."""
        settings, teachers = self._settings, self._teachers
        features = self.student.net.features(self._shown(targets, rows), self._norm)
        rows = rows.to(features.device)
        found = {}
        if settings.feature_weight:
            mapped = self.student.to_features(unit(features))
            wanted = targets.features[rows] - self._mean
            found["feature_loss"] = settings.feature_weight, feature_loss(mapped, wanted)
        if settings.similarity_weight:
            loss = similarity_loss(unit(features), targets.features[rows])
            found["similarity_loss"] = settings.similarity_weight, loss
        if settings.soft_label_weight and targets.logits is not None:
            logits = self.student.to_logits(features)
            loss = soft_label_loss(
                logits, targets.logits[rows], teachers.classes, settings.temperature
            )
            found["soft_label_loss"] = settings.soft_label_weight, loss
        return found

    def _shown(self, targets: TeacherTargets, rows: Tensor) -> Tensor:
        """Return views, some mirrored where the teachers' answers do not tell."""
        images = targets.views[rows.to(targets.views.device)]
        if self._settings.mirrored:
            mirrored = torch.rand(len(rows), generator=self._generator) < 0.5
            mirrored = mirrored.to(images.device)[:, None, None, None]
            images = torch.where(mirrored, images.flip(-1), images)
        return images.contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that is needed to continue bit by bit.

        `round` is the state of the generator where the round began, `generator` the present one.
        """
        return deepcopy(
            {
                "step": self.step,
                "done": self._done,
                "round": self._round,
                "student": self.student.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "mean": self._mean,
                "generator": self._generator.get_state(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        state = deepcopy(dict(state))
        self.step, self._done = state["step"], state["done"]
        self.student.load_state_dict(state["student"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._mean = state["mean"].to(self._images.device)
        self._round = state["round"].cpu()
        self._generator.set_state(self._round)
        self._current = state["generator"].cpu() if self._done else None


class FusedBatchNorm(BlockNorm):
    """`batch_norm` with hand-written blocks of Conv4 (`bench/nets/fast/batch_blocks.py`)."""

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the batch."""
        return batch_norm(layer, x)

    def conv_block(self, conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H // 2, W // 2)."""
        return batch_block(conv, layer, x)


def schedule(step: int, steps: int) -> float:
    """Return the fraction of the peak rate at a step: linear warm-up, then half a cosine."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


@torch.no_grad()
def set_statistics(net: Backbone, images: Tensor) -> None:
    """Set the running statistics of every BN layer to their mean over batches of images."""
    seen: dict[nn.BatchNorm2d, list[tuple[Tensor, Tensor]]] = {}

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        seen.setdefault(layer, []).append(batch_statistics(x))
        return batch_norm(layer, x)

    for part in images[:STATISTICS_VIEWS].split(STATISTICS_BATCH):
        net.features(part.contiguous(memory_format=torch.channels_last), norm)
    for layer, found in seen.items():
        means, variances = (torch.stack(values).mean(0) for values in zip(*found, strict=True))
        mean, variance = running_statistics(layer)
        mean.copy_(means)
        variance.copy_(variances)
