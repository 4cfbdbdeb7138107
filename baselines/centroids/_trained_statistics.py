"""Mean and deviation of a teacher's features on its training images, from its batch norm layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.contract import Backbone, Teacher
from bench.nets.norm import Norm

SAMPLES = 256
FLOOR = 1e-3
"""Least deviation that a feature is divided by, relative to the mean deviation."""


def drawn_norm(generator: torch.Generator) -> Norm:
    """Return a norm that ignores its input and draws outputs with each layer's training moments.

    Over its training batches a batch norm's output has mean β and deviation |γ| in each channel.
    That it is Gaussian, and independent between channels and positions, is assumed.
    """

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        draw = torch.randn(x.shape, generator=generator).to(x)
        scale, shift = layer.weight[:, None, None], layer.bias[:, None, None]
        return shift + scale * draw

    return norm


@torch.no_grad()
def trained_statistics(
    net: Backbone,
    image_size: int,
    transform: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (D,), (D,) of a network's transformed features.

    Args:
        net: with batch norm; no image is shown to it.
        image_size: the side of its images, pixels.
        transform: features (B, D) → (B, D).
        generator: CPU generator of the draws.
        device: where the network is.
    """
    blank = torch.zeros(SAMPLES, 3, image_size, image_size, device=device)
    features = transform(net.features(blank, drawn_norm(generator)))
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, deviation.clamp_min(FLOOR * deviation.mean())


def statistics_of(
    teachers: Sequence[Teacher],
    transform: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Return every teacher's statistics as tensors of a fit: `mean.00`, `deviation.00`, and on."""
    found: dict[str, Tensor] = {}
    for number, teacher in enumerate(teachers):
        size = teacher.spec.image_size
        mean, deviation = trained_statistics(teacher.net, size, transform, generator, device)
        found |= {f"mean.{number:02d}": mean, f"deviation.{number:02d}": deviation}
    return found


def standardised(
    features: Tensor, fitted: Mapping[str, Tensor], number: int, whiten: bool
) -> Tensor:
    """Return features (B, D) minus a teacher's mean; with `whiten`, divided by its deviations."""
    moved = features - fitted[f"mean.{number:02d}"].to(features)
    return moved / fitted[f"deviation.{number:02d}"].to(features) if whiten else moved
