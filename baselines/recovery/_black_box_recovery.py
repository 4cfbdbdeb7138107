"""Recover images of a black box's classes with a generator and zero-order gradients."""

from __future__ import annotations

from collections.abc import Callable

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


def recover(
    net: Generator,
    latents: Tensor,
    objective: Objective,
    scale: PixelScale,
    steps: int,
    directions: int,
    smoothing: float,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Train a generator and its latents by zero-order gradients at its images.

    Args:
        net: the generator, changed in place.
        latents: (B, L), where they start.
        objective: a step's normalised images (B, 3, H, W) → a function of images
            (K, B, 3, H, W) whose values (K, B) are to fall.
        scale: to normalised units.
        steps: see `BidfMkdConfig`, as for the rest.
        directions: of an estimate.
        smoothing: the length of a step in a direction.
        lr: Adam's rate.
        generator: CPU generator of the directions.

    Returns:
        Pixels (B, 3, H, W) in [0, 1] of the step whose mean value was least, and that mean, 0-d.
        Takes steps · B · (directions + 1) values.
    """
    latents = latents.clone().requires_grad_()
    optimiser = torch.optim.Adam([*net.parameters(), latents], lr=lr, betas=(0.5, 0.999))
    best = latents  # replaced in the first step
    least = latents.new_tensor(float("inf"))
    for step in range(steps):
        pixels = net(latents)
        images = scale.normalised(pixels)
        gradient, at = zero_order_gradient(
            objective(images.detach()), images.detach(), directions, smoothing, generator
        )
        better = at.mean() < least
        best = torch.where(better, pixels.detach(), best) if step else pixels.detach()
        least = torch.where(better, at.mean(), least)
        optimiser.zero_grad(set_to_none=True)
        (images * gradient).flatten(1).sum(1).mean().backward()
        optimiser.step()
    return best, least
