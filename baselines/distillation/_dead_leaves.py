"""Dead leaves: synthetic images of shapes that occlude one another.

They share with photographs what a convolution's first layers look for: edges, flat regions and
textures at all scales. Source of the model: Lee, Mumford and Huang, "Occlusion Models for Natural
Images", IJCV 2001; of its use for learning features: Baradad et al., "Learning to See by Looking
at Noise", NeurIPS 2021, arXiv 2106.05963. Constants are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAVES = 40
"""Shapes of an image; the first `LARGE` of them are large."""
LARGE = 6
RADII = (0.05, 0.6)
"""Radii of the other shapes, as fractions of the side; their density falls with the cube."""
CHROMA = 0.15
"""Standard deviation of a colour's channels around its lightness."""
TEXTURE = 0.2
"""Largest standard deviation of an image's texture."""


def dead_leaves(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Return images (n, 3, size, size) in [0, 1].

    Each has a palette of its own: the spread of the colours around one of them is drawn too. The
    leaves are ellipses and rectangles with a shade across them; a texture lies over the whole.

    Args:
        n: how many images.
        size: side in pixels.
        generator: CPU generator.
    """
    colours = _palette(n, LEAVES + 1, generator)
    images = colours[:, 0, :, None, None].expand(n, 3, size, size).clone()
    for leaf in range(LEAVES):
        cover, shade = _leaf(n, size, leaf < LARGE, generator)
        images = torch.lerp(images, colours[:, leaf + 1, :, None, None] + shade, cover)
    texture = spectral_noise(n, size, generator)
    strength = TEXTURE * torch.rand((n, 1, 1, 1), generator=generator)
    return (images + strength * (0.7 * texture[:, :1] + 0.3 * texture)).clamp_(0, 1)


def normalised_leaves(
    n: int, size: int, mean: Sequence[float], std: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Return dead leaves (n, 3, size, size) normalised by mean and std, 3 numbers each."""
    images = dead_leaves(n, size, generator)
    shift, scale = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images - shift) / scale


def spectral_noise(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Return noise (n, 3, size, size) whose amplitude falls as a power of the frequency.

    The power is drawn for each image between 0.7 and 1.5; photographs have about 1. Each channel
    has mean 0 and standard deviation 1.
    """
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    frequency = (rows.square() + columns.square()).sqrt()
    frequency[0, 0] = 1 / size
    power = 0.7 + 0.8 * torch.rand((n, 1, 1, 1), generator=generator)
    draw = torch.randn((n, 3, *frequency.shape, 2), generator=generator)
    noise = torch.fft.irfft2(torch.view_as_complex(draw) / frequency**power, s=(size, size))
    noise = noise - noise.mean((2, 3), keepdim=True)
    return noise / noise.std((2, 3), keepdim=True)


def _palette(n: int, k: int, generator: torch.Generator) -> Tensor:
    """Return k colours (n, k, 3) for each of n images."""
    lightness = torch.rand((n, k, 1), generator=generator)
    chroma = CHROMA * torch.randn((n, k, 3), generator=generator)
    colours = (lightness + chroma).clamp(0, 1)
    spread = 0.2 + 0.8 * torch.rand((n, 1, 1), generator=generator)
    return torch.lerp(colours[:, :1], colours, spread)


def _leaf(n: int, size: int, large: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the opacity of a leaf at each pixel (n, 1, size, size) in [0, 1], and its shade."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((n, 1, 1), generator=generator)

    centre_y, centre_x = uniform(-0.1, 1.1) * size, uniform(-0.1, 1.1) * size
    smallest, largest = (1 / radius**2 for radius in RADII)
    radius = uniform(0.15, 0.65) if large else uniform(largest, smallest).rsqrt()
    radius = radius * size
    angle, aspect = uniform(0, math.pi), uniform(0.35, 1)
    place = torch.arange(size) + 0.5
    dy, dx = place[:, None] - centre_y, place - centre_x  # (n, size, size)
    along = (dx * angle.cos() + dy * angle.sin()) / radius
    across = (dy * angle.cos() - dx * angle.sin()) / (radius * aspect)
    round_, square = (along.square() + across.square()).sqrt(), along.abs().maximum(across.abs())
    distance = torch.where(uniform(0, 1) < 0.6, round_, square)
    cover = ((1 - distance) * radius + 0.5).clamp(0, 1)
    shade = along * uniform(-0.25, 0.25) + across * uniform(-0.25, 0.25)
    return cover[:, None], shade[:, None]
