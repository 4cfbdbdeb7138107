"""Task groupings regularisation: losses at parameters displaced against their gradients' mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Displaced(NamedTuple):
    """What `displaced_gradient` returns.

    The gradient by name, each loss where it was met first, 0-d, and the variance of the losses'
    gradients there, 0-d: the mean squared distance from their mean.
    """

    gradient: dict[str, Tensor]
    losses: list[Tensor]
    variance: Tensor


def displaced_gradient(
    params: Mapping[str, Tensor],
    losses: Sequence[Callable[[Mapping[str, Tensor]], Tensor]],
    displacement: float,
) -> Displaced:
    """Return the gradient of the mean of the losses, each at parameters displaced for it.

    With the gradients gᵢ at θ and their mean ḡ, loss i is met at θᵢ = θ - λ(ḡ - gᵢ), and the mean
    of ℓᵢ(θᵢ) is differentiated through the displacement. As ℓᵢ(θᵢ) ≈ ℓᵢ - λ gᵢ·(ḡ - gᵢ), that
    is, to first order in λ, ∇ mean ℓᵢ + λ ∇ mean ‖gᵢ - ḡ‖²: a penalty on the variance of the
    gradients. The derivation is ours.

    Args:
        params: θ; left alone.
        losses: functions of parameters; at least one.
        displacement: λ; 0 leaves the gradient of the mean.

    Source: Task Groupings Regularization (Wei et al., ICML 2024, arXiv 2405.16560), its released
    code.
    """
    at = {name: value.detach().requires_grad_() for name, value in params.items()}
    values = list(at.values())
    met = [loss_of(at) for loss_of in losses]
    own = [
        torch.autograd.grad(loss, values, create_graph=True, materialize_grads=True) for loss in met
    ]
    mean = [torch.stack(one).mean(0) for one in zip(*own, strict=True)]
    moved = []
    for loss_of, gradient in zip(losses, own, strict=True):
        steps = zip(at.items(), mean, gradient, strict=True)
        moved.append(loss_of({name: x - displacement * (m - g) for (name, x), m, g in steps}))
    gradients = torch.autograd.grad(torch.stack(moved).mean(), values, materialize_grads=True)
    return Displaced(
        dict(zip(at, gradients, strict=True)),
        [loss.detach() for loss in met],
        _variance([[g.detach() for g in one] for one in own], [m.detach() for m in mean]),
    )


def _variance(own: Sequence[Sequence[Tensor]], mean: Sequence[Tensor]) -> Tensor:
    """Return the mean over gradients of their squared distance from the mean, 0-d."""
    distances = [
        torch.stack([(g - m).square().sum() for g, m in zip(one, mean, strict=True)]).sum()
        for one in own
    ]
    return torch.stack(distances).mean()
