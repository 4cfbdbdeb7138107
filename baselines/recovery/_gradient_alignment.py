"""Gradient alignment: descend several losses one after the other, as in Reptile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

FastOptimiser = Literal["adam", "sgd"]


def sequential_displacement(
    params: Mapping[str, Tensor],
    losses: Sequence[Callable[[Mapping[str, Tensor]], Tensor]],
    lr: float,
    optimiser: FastOptimiser = "adam",
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return parameters before minus after one step on each loss in turn.

    Implicit gradient alignment: two steps of SGD on losses 1 and 2 displace by
    α(g₁ + g₂) - α²H₂g₁; over both orders the mean is α(g₁ + g₂) - α²/2 · ∇(g₁·g₂). A
    step against it lowers the losses and, in the second order, raises the inner product of their
    gradients.

    Args:
        params: where to start; left alone.
        losses: functions of parameters.
        lr: of each step.
        optimiser: a fresh Adam, as released, or the plain SGD of the analysis.

    Returns:
        The displacement by name, and each loss before its step, 0-d.

    Source: FREE (arXiv 2405.00984), section 3.3; Nichol et al., "On First-Order Meta-Learning
    Algorithms" (Reptile), arXiv 1803.02999, section 5.1.
    """
    fast = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    kind = torch.optim.Adam if optimiser == "adam" else torch.optim.SGD
    steps = kind(fast.values(), lr=lr)
    met = []
    for loss_of in losses:
        loss = loss_of(fast)
        gradients = torch.autograd.grad(loss, list(fast.values()), materialize_grads=True)
        for value, gradient in zip(fast.values(), gradients, strict=True):
            value.grad = gradient
        steps.step()
        met.append(loss.detach())
    return {name: params[name].detach() - fast[name].detach() for name in params}, met
