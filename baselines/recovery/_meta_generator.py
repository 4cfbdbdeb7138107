"""A meta-generator that a few steps adapt to any teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.recovery._generator import Generator

BETAS = (0.5, 0.999)

Loss = Callable[[Tensor], Tensor]
"""Pixels (B, 3, H, W) in [0, 1] → what a teacher wants lowered, 0-d, differentiable."""


@dataclass(frozen=True)
class Adapted:
    """What adapting to a teacher gave.

    The pixels (B, 3, H, W) of the step whose loss was least, the loss of each step (steps,), and
    the generator's gradient at the last of them by name.
    """

    pixels: Tensor
    losses: Tensor
    gradient: dict[str, Tensor]


def adapt(
    generator: Generator, latents: Tensor, loss_of: Loss, steps: int, lr: float, latent_lr: float
) -> Adapted:
    """Adapt a copy of the generator and latents to one teacher by Adam.

    Args:
        generator: where to start.
        latents: (B, L), likewise.
        loss_of: the teacher's loss.
        steps: forward and backward passes.
        lr: Adam's rate on the generator.
        latent_lr: its rate on the latents.
    """
    fast, latents = deepcopy(generator), latents.clone().requires_grad_()
    groups: list[dict[str, Any]] = [
        {"params": list(fast.parameters()), "lr": lr},
        {"params": [latents], "lr": latent_lr},
    ]
    optimiser = torch.optim.Adam(groups, lr=lr, betas=BETAS)
    best, gradient = latents, dict[str, Tensor]()
    losses: list[Tensor] = []
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        pixels = fast(latents)
        loss = loss_of(pixels)
        loss.backward()
        shown, value = pixels.detach(), loss.detach()
        best = torch.where(value < torch.stack(losses).min(), shown, best) if losses else shown
        losses.append(value)
        gradient = {n: p.grad.clone() for n, p in fast.named_parameters() if p.grad is not None}
        optimiser.step()
    return Adapted(best, torch.stack(losses), gradient)


class MetaGenerator:
    """The generator from which every adaptation starts, and its own training.

    First-order MAML: the sum of the gradients at the end of each adaptation makes one Adam step.

    Args:
        generator: at its fresh weights; changed in place.
        lr: Adam's rate.
    """

    def __init__(self, generator: Generator, lr: float) -> None:
        self.generator = generator
        self._optimiser = torch.optim.Adam(generator.parameters(), lr=lr, betas=BETAS)

    def learn(self, adapted: Sequence[Adapted]) -> None:
        """Take one step along the gradients of some adaptations."""
        for name, parameter in self.generator.named_parameters():
            parameter.grad = torch.stack([one.gradient[name] for one in adapted]).sum(0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue."""
        return {
            "net": {name: v.detach().clone() for name, v in self.generator.state_dict().items()},
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.generator.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
