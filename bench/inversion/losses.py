"""The inversion loss: low for images that resemble those a teacher was trained on.

Pure functions of tensors; device and dtype come from the tensors given. Source: the paper's
released code, whose inversion loss is DeepInversion's (arXiv 1912.08795) without squares in the
total variation and without its teacher-student term.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from bench.contract import Backbone
from bench.nets.norm import LayerStatistics, RecordingNorm, StatisticsNorm, running_statistics


@dataclass(frozen=True)
class InversionWeights:
    """Factors of the four terms."""

    cross_entropy: float
    bn_statistics: float
    total_variation: float
    l2: float


@dataclass(frozen=True)
class InversionTerms:
    """The weighted sum and its unweighted terms, each a 0-d tensor."""

    total: Tensor
    cross_entropy: Tensor
    bn_statistics: Tensor
    total_variation: Tensor
    l2: Tensor


TERMS = {
    "inversion": "total",
    "cross_entropy": "cross_entropy",
    "bn_statistics": "bn_statistics",
    "total_variation": "total_variation",
    "l2": "l2",
}
"""What a fit's log calls the terms, in their order, and the names here."""


def total_variation_loss(x: Tensor) -> Tensor:
    """Return the sum of the Frobenius norms of four neighbour differences over the whole batch.

    Args:
        x: images (B, C, H, W).

    Returns:
        0-d tensor: horizontal, vertical and both diagonal differences; neither squared nor
        averaged over the images.
    """
    return (
        vector_norm(x[..., :, 1:] - x[..., :, :-1])
        + vector_norm(x[..., 1:, :] - x[..., :-1, :])
        + vector_norm(x[..., 1:, 1:] - x[..., :-1, :-1])
        + vector_norm(x[..., 1:, :-1] - x[..., :-1, 1:])
    )


def bn_statistics_loss(layers: Iterable[LayerStatistics]) -> Tensor:
    """Return the distance of the batch's activation statistics from each BN layer's stored ones.

    Args:
        layers: (layer, batch mean (C,), biased batch variance (C,)) of each layer's input, as
            `RecordingNorm.layers` lists them; at least one.

    Returns:
        0-d tensor: sum over layers of ‖running_var − variance‖₂ + ‖running_mean − mean‖₂.
    """
    distances = []
    for layer, mean, variance in layers:
        seen_mean, seen_variance = running_statistics(layer)
        distances.append(vector_norm(seen_variance - variance) + vector_norm(seen_mean - mean))
    return torch.stack(distances).sum()


def bn_statistics_term(layers: Sequence[LayerStatistics], like: Tensor) -> Tensor:
    """Return `bn_statistics_loss`, or a zero like `like` for a network without batch norm."""
    return bn_statistics_loss(layers) if layers else like.new_zeros(())


def l2_loss(x: Tensor) -> Tensor:
    """Return the Frobenius norm of the whole batch, a 0-d tensor."""
    return vector_norm(x)


_NEIGHBOURS = tuple(
    tuple((..., *one) for one in pair)
    for pair in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(1, None), slice(1, None)), (slice(None, -1), slice(None, -1))),
        ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))),
    )
)
"""Pairs of slices whose difference `total_variation_loss` takes."""


@torch.no_grad()
def pixel_terms_and_gradient(x: Tensor, weights: InversionWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Return total variation, L2, and the gradient of their weighted sum, in closed form.

    The gradient of ‖D x‖ is Dᵀ D x / ‖D x‖, and zero where ‖D x‖ is; a third of the time of
    automatic differentiation.

    Args:
        x: images (B, C, H, W).
        weights: factors; those of the network play no part.

    Returns:
        Two 0-d tensors, unweighted, and the gradient (B, C, H, W).
    """
    l2 = vector_norm(x)
    gradient = x * _share(weights.l2, l2)
    total_variation = torch.zeros_like(l2)
    for one, other in _NEIGHBOURS:
        difference = x[one] - x[other]
        norm = vector_norm(difference)
        total_variation = total_variation + norm
        difference.mul_(_share(weights.total_variation, norm))
        gradient[one] += difference
        gradient[other] -= difference
    return total_variation, l2, gradient


def _share(weight: float, norm: Tensor) -> Tensor:
    """Return weight / norm, or 0 where the norm is 0."""
    return torch.where(norm > 0, weight / norm, 0.0)


def roll(x: Tensor, dy: int, dx: int) -> Tensor:
    """Return images (B, C, H, W) shifted cyclically by dy pixels down and dx pixels right."""
    return torch.roll(x, (dy, dx), (-2, -1))


def inversion_loss(
    net: Backbone,
    images: Tensor,
    labels: Tensor,
    weights: InversionWeights,
    norm: StatisticsNorm | None = None,
) -> InversionTerms:
    """Return the inversion loss of one teacher on one batch of pseudo images.

    Args:
        net: the teacher's network; the running statistics of its batch norm, where it has some,
            are read, nothing of it is written.
        images: pseudo images (B, 3, H, W) in the teacher's normalised pixel space, already rolled.
        labels: (B,) outputs of the teacher's head that the images shall show.
        weights: factors of the terms.
        norm: a fresh one; None takes a `RecordingNorm`.

    Returns:
        The weighted sum, differentiable with respect to the images, and its terms.
    """
    norm = RecordingNorm() if norm is None else norm
    logits = net(images, norm)
    cross_entropy = F.cross_entropy(logits, labels)
    bn_statistics = bn_statistics_term(norm.layers, cross_entropy)
    total_variation = total_variation_loss(images)
    l2 = l2_loss(images)
    total = (
        weights.cross_entropy * cross_entropy
        + weights.bn_statistics * bn_statistics
        + weights.total_variation * total_variation
        + weights.l2 * l2
    )
    return InversionTerms(total, cross_entropy, bn_statistics, total_variation, l2)
