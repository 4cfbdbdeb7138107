"""Recover images of a black box's classes with a generator and zero-order gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from baselines.distillation._losses import agreeing
from baselines.recovery._generator import Generator, PixelScale
from baselines.recovery._zero_order import zero_order_gradient

Objective = Callable[[Tensor], Callable[[Tensor], Tensor]]
"""Images (B, C, H, W) of a step → (images (K, B, C, H, W) → values (K, B))."""


def recovery_objective(
    box: Callable[[Tensor], Tensor],
    labels: Tensor,
    student: Callable[[Tensor], Tensor] | None = None,
    boundary_weight: float = 1.0,
) -> Objective:
    """Return what recovery lowers, image by image; for each step's images a function of its own.

    The cross-entropy of the answers with the labels; with a student, less `boundary_weight` times
    the L1 distance of the student's probabilities to the answers where both name the same class.
    The student answers for the step's own images and counts as constant in the directions.

    Args:
        box: normalised images (B, C, H, W) → log-probabilities (B, n).
        labels: (B,).
        student: images (B, C, H, W) → logits (B, n), or None.
        boundary_weight: see `BidfMkdConfig`.
    """

    def objective(images: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            guess = None if student is None else student(images)

        def values(images: Tensor) -> Tensor:
            answers = box(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # (K, B, n)
            index = labels.expand(len(images), -1)[..., None]
            loss = -answers.gather(-1, index).squeeze(-1)
            if guess is None:
                return loss
            distance = (guess.softmax(-1) - answers.exp()).abs().sum(-1)
            return loss - boundary_weight * distance * agreeing(guess, answers)

        return values

    return objective


class Recovery:
    """Images under recovery: a generator and its latents, trained by zero-order gradients.

    Args:
        net: the generator, changed in place.
        latents: (B, L), where they start.
        scale: to normalised units.
        lr: Adam's rate.

    Attributes:
        step: the steps that are done.
        least: the least mean value of a step so far, 0-d.
    """

    def __init__(self, net: Generator, latents: Tensor, scale: PixelScale, lr: float) -> None:
        self._net, self._scale = net, scale
        self._latents = latents.clone().requires_grad_()
        parameters = [*net.parameters(), self._latents]
        self._optimiser = torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999))
        self._best: Tensor | None = None
        self.least = latents.new_tensor(float("inf"))
        self.step = 0

    @property
    def pixels(self) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] of the step whose mean value was least."""
        assert self._best is not None, "no step was made"
        return self._best

    def advance(
        self, objective: Objective, directions: int, smoothing: float, generator: torch.Generator
    ) -> None:
        """Make one step; it takes B · (directions + 1) values.

        Args:
            objective: a step's normalised images (B, 3, H, W) → a function of images
                (K, B, 3, H, W) whose values (K, B) are to fall.
            directions: of an estimate.
            smoothing: the length of a step in a direction.
            generator: CPU generator of the directions.
        """
        pixels = self._net(self._latents)
        images = self._scale.normalised(pixels)
        gradient, at = zero_order_gradient(
            objective(images.detach()), images.detach(), directions, smoothing, generator
        )
        better, made = at.mean() < self.least, pixels.detach()
        self._best = made if self._best is None else torch.where(better, made, self._best)
        self.least = torch.where(better, at.mean(), self.least)
        self._optimiser.zero_grad(set_to_none=True)
        (images * gradient).flatten(1).sum(1).mean().backward()
        self._optimiser.step()
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that is needed to continue, but the streams."""
        return deepcopy(
            {
                "step": self.step,
                "net": self._net.state_dict(),
                "latents": self._latents.detach(),
                "optimiser": self._optimiser.state_dict(),
                "best": self._best,
                "least": self.least,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        state = deepcopy(dict(state))
        self.step = state["step"]
        self._net.load_state_dict(state["net"])
        with torch.no_grad():
            self._latents.copy_(state["latents"])
        self._optimiser.load_state_dict(state["optimiser"])
        best = state["best"]
        self._best = None if best is None else best.to(self._latents.device)
        self.least = state["least"].to(self._latents.device)
