"""Mixup and CutMix: more distinct inputs from few pseudo images."""

from __future__ import annotations

import torch
from torch import Tensor


def blend(images: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """Return weighted means of pairs of images (mixup, Zhang et al., arXiv 1710.09412).

    Args:
        images: (B, C, H, W).
        others: the same shape.
        weights: (B,) in [0, 1], the share of `others`.
    """
    return torch.lerp(images, others, weights.to(images)[:, None, None, None])


def cut_mix(images: Tensor, others: Tensor, centres: Tensor, sides: Tensor) -> Tensor:
    """Return images with a square taken from another one (CutMix, Yun et al., arXiv 1905.04899).

    Args:
        images: (B, C, H, W).
        others: the same shape.
        centres: (B, 2), row and column of the square's centre, pixels.
        sides: (B,) its side, pixels; what lies outside the image is cut off.
    """
    height, width = images.shape[-2:]
    centres, half = centres.to(images), sides.to(images)[:, None] / 2

    def within(length: int, centre: Tensor) -> Tensor:
        place = torch.arange(length, device=images.device) + 0.5
        return (place - centre[:, None]).abs() < half  # (B, length)

    rows, columns = within(height, centres[:, 0]), within(width, centres[:, 1])
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(square, others, images)


def mix(
    images: Tensor,
    others: Tensor,
    blend_share: float,
    cut_share: float,
    generator: torch.Generator,
) -> Tensor:
    """Return images of which some are blended, some cut-mixed, and the rest unchanged.

    Args:
        images: (B, C, H, H).
        others: the same shape.
        blend_share: probability that an image is blended.
        cut_share: that it is cut-mixed; both in sum at most 1.
        generator: CPU generator.
    """
    n, size = len(images), images.shape[-1]
    kind, weight = torch.rand((2, n), generator=generator)
    centres = size * torch.rand((n, 2), generator=generator)
    blended = blend(images, others, weight)
    cut = cut_mix(images, others, centres, size * weight.sqrt())
    kind = kind.to(images.device)[:, None, None, None]
    return torch.where(
        kind < blend_share, blended, torch.where(kind < blend_share + cut_share, cut, images)
    )
