"""A network that tells the classes of all teachers apart, trained on their pseudo images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.distillation._mixing import blend
from baselines.distillation._pseudo_views import PseudoImageSettings
from baselines.distillation._student import (
    STATISTICS_VIEWS,
    FusedBatchNorm,
    linear,
    schedule,
    set_statistics,
)
from bench.contract import Backbone, FitLog, Teacher
from bench.inversion.augmentation import Augmentation
from bench.nets.norm import batch_norm

Counter = Literal["nothing", "colour", "standardisation"]
"""What keeps a network from telling teachers apart by the style of their pseudo images."""
FLOOR = 1e-3
"""Smallest deviation that a channel of an image is divided by, in normalised units."""


class ClassifierSettings(PseudoImageSettings):
    """How a network learns the pseudo classes."""

    steps: int | None = Field(None, ge=1)
    """Adam steps of each network; None: `steps_per_meta_iteration` for each of the budget's
    meta-iterations. Ours."""
    steps_per_meta_iteration: int = Field(4, ge=1)
    """steps for each of the budget's meta-iterations, where `steps` is None. Ours."""
    most_steps: int = Field(5_000, ge=1)
    """bound on those, for long budgets: a longer fit learns the pseudo images by heart. Ours."""
    batch: int = Field(128, ge=2)
    """views of a step. Ours."""
    learning_rate: float = Field(1e-2, gt=0)
    """Adam's highest rate: reached after a tenth of the steps, then down along a cosine. Ours."""
    shift: int = Field(4, ge=0)
    """largest shift of a view, each way, edges mirrored. Ours. Unit: px"""
    flip: bool = True
    """whether views are mirrored left and right at random; wrong for letters. Ours."""
    mixup: bool = True
    """whether each view is a weighted mean of two, and its target likewise (Zhang et al.,
    arXiv 1710.09412); the weight is uniform. Ours."""
    colour: float = Field(0.3, ge=0)
    """networks with the counter-measure `colour`: all values of a view times 1 ± this, and up to
    ± this added to each channel. Ours. Unit: normalised pixels"""

    def n_steps(self, meta_iterations: int) -> int:
        """Return each network's steps for a budget of so many meta-iterations."""
        if self.steps is not None:
            return self.steps
        return min(self.most_steps, self.steps_per_meta_iteration * meta_iterations)


def pseudo_classes(teachers: Sequence[Teacher], images: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Return the labels (M,) of pseudo images among the classes of all teachers, and their number.

    A class that several teachers share is one class.

    Args:
        teachers: the teachers.
        images: of each, its pseudo images (n · m, 3, H, W), class by turns.
    """
    known = sorted({number for teacher in teachers for number in teacher.class_ids})
    labels = []
    for teacher, own in zip(teachers, images, strict=True):
        numbers = torch.tensor([known.index(number) for number in teacher.class_ids])
        labels.append(numbers.repeat(len(own) // len(numbers)))
    return torch.cat(labels).to(images[0].device), len(known)


def standardised(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) of mean 0 and deviation 1 in each channel of each image."""
    variance, mean = torch.var_mean(images, dim=(2, 3), correction=0, keepdim=True)
    return (images - mean) / variance.sqrt().clamp_min(FLOOR)


class PseudoClassifier:
    """Trains one network on labelled pseudo images; goes on from any step.

    Args:
        net: the network, trained in place; its own head is not used.
        counter: what is done against the style of each teacher's images.
        images: pseudo images (M, 3, H, W).
        labels: (M,) their classes.
        n_classes: how many there are.
        settings: see `ClassifierSettings`.
        steps: Adam steps.
        generator: CPU generator of the head's first weights and of the views.
        log: gets the losses.
        first_step: where the log's step numbers start.
    """

    def __init__(
        self,
        net: Backbone,
        counter: Counter,
        images: Tensor,
        labels: Tensor,
        n_classes: int,
        settings: ClassifierSettings,
        steps: int,
        generator: torch.Generator,
        log: FitLog,
        first_step: int = 0,
    ) -> None:
        self._images, self._labels, self._settings = images, labels, settings
        self._generator, self._log, self._first_step = generator, log, first_step
        self._standardises = counter == "standardisation"
        colour = settings.colour if counter == "colour" else 0.0
        self._change = Augmentation(settings.flip, settings.shift, colour)
        self._norm = FusedBatchNorm() if images.device.type == "cpu" else batch_norm
        head = linear(net.n_features, n_classes, images.device, generator)
        self._parts = nn.ModuleDict({"net": net, "classes": head})
        self._net, self._head = net, head
        trained = [p for name, p in self._parts.named_parameters() if "net.head." not in name]
        self._optimiser = torch.optim.Adam(trained, lr=settings.learning_rate)
        self.steps, self.step = steps, 0

    def run(self, note: Callable[[int], None], offer: Callable[[int], None]) -> None:
        """Run the remaining steps.

        Args:
            note: called after each step with the steps done.
            offer: called likewise, where the fit may be saved.
        """
        while self.step < self.steps:
            self._learn()
            note(self.step)
            offer(self.step)
        views, _ = self._views(STATISTICS_VIEWS)
        set_statistics(self._net, self._shown(views))

    def _learn(self) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * schedule(self.step, self.steps)
        n = self._settings.batch
        views, labels = self._views(n)
        other_labels, shares = labels, torch.zeros(n)
        if self._settings.mixup:
            others, other_labels = self._views(n)
            shares = torch.rand(n, generator=self._generator)
            views = blend(views, others, shares)
        logits = self._head(self._net.features(self._shown(views), self._norm))
        first, second = (
            F.cross_entropy(logits, one, reduction="none") for one in (labels, other_labels)
        )
        loss = torch.lerp(first, second, shares.to(first)).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self.step += 1
        self._log.scalars(self._first_step + self.step, {"class_loss": loss.detach()})

    def _views(self, n: int) -> tuple[Tensor, Tensor]:
        """Return views (n, 3, H, W) and their labels (n,)."""
        rows = torch.randint(len(self._images), (n,), generator=self._generator)
        rows = rows.to(self._images.device)
        return self._change(self._images[rows], self._generator), self._labels[rows]

    def _shown(self, views: Tensor) -> Tensor:
        views = standardised(views) if self._standardises else views
        return views.contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that is needed to continue bit by bit."""
        return deepcopy(
            {
                "step": self.step,
                "parts": self._parts.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "generator": self._generator.get_state(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        state = deepcopy(dict(state))
        self.step = state["step"]
        self._parts.load_state_dict(state["parts"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"].cpu())
