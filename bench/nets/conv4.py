"""Conv4, the small backbone of few-shot learning."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import OptimiserRecipe
from bench.nets.base import Backbone, scale_norm
from bench.nets.norm import BlockNorm, Norm, running_norm


def plain_block(norm: Norm, conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Map (B, C_in, H, W) to (B, C, H // 2, W // 2): convolution, BN, 2×2 max-pooling, ReLU."""
    return F.relu(F.max_pool2d(norm(bn, conv(x)), 2))


def conv_block(norm: Norm, conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Compute `plain_block`, or the norm's fast implementation of it (`bench/nets/fast`)."""
    if isinstance(norm, BlockNorm):
        return norm.conv_block(conv, bn, x)
    return plain_block(norm, conv, bn, x)


class Conv4(Backbone):
    """Four blocks of 3×3 convolution (with bias, 32 channels), BN, ReLU, 2×2 max-pooling; flatten.

    The pooling comes before the ReLU, which it commutes with: same values and gradients on a
    quarter of the activations.

    Five-way: 29,541 parameters and 128 features at 32 px, 32,901 and 800 at 84 px.
    """

    recipe = OptimiserRecipe(optimiser="adam", lr=0.01)

    def __init__(self, n_classes: int, image_size: int, channels: int = 32) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size {image_size}: four poolings need at least 16 pixels")
        widths = [3, *[channels] * 4]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(4))
        self.n_features = channels * (image_size // 16) ** 2
        self.head = nn.Linear(self.n_features, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the flattened last feature map (B, channels · (image_size // 16)²)."""
        for conv, bn in self._layers():
            x = conv_block(norm, conv, bn, x)
        return x.flatten(1)

    def scale_features(self, factor: float) -> None:
        """Scale the last norm; pooling and ReLU pass a positive factor on."""
        scale_norm(self._layers()[-1][1], factor)

    def _layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        pairs = list(zip(self.convs, self.norms, strict=True))
        return cast("list[tuple[nn.Conv2d, nn.BatchNorm2d]]", pairs)  # a ModuleList does not say so


class Conv4Wide(Conv4):
    """Conv4 with 64 channels: 256 features at 32 px, about four times Conv4's operations.

    The width of the first papers (Vinyals et al., "Matching Networks for One Shot Learning",
    NeurIPS 2016, arXiv 1606.04080; Snell et al., NeurIPS 2017, arXiv 1703.05175).
    """

    def __init__(self, n_classes: int, image_size: int, channels: int = 64) -> None:
        super().__init__(n_classes, image_size, channels)


class Conv4Pooled(Conv4):
    """Conv4 whose last feature map is averaged over all positions: 32 features at any size.

    The meta-model of pools across data sets of different image sizes.
    """

    def __init__(self, n_classes: int, image_size: int, channels: int = 32) -> None:
        super().__init__(n_classes, image_size, channels)
        self.n_features = channels
        self.head = nn.Linear(channels, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the mean of the last feature map (B, channels) of images of any size."""
        for conv, bn in self._layers():
            x = conv_block(norm, conv, bn, x)
        return x.mean((2, 3))
