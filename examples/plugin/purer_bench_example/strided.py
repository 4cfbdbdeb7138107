"""A network: three strided convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import OptimiserRecipe
from bench.nets.base import Backbone, scale_norm
from bench.nets.norm import Norm, running_norm


class Strided(Backbone):
    """Three 3×3 convolutions of stride 2 with batch norm and ReLU, then the mean: 32 features.

    Every batch norm layer is passed to the `norm` that the caller gives, so that learners choose
    the statistics. Merges find the channels by themselves.
    """

    recipe = OptimiserRecipe(optimiser="adam", lr=0.01)

    def __init__(self, n_classes: int, image_size: int) -> None:
        super().__init__()
        widths = [3, 16, 32, 32]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.n_features = widths[-1]
        self.head = nn.Linear(self.n_features, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the mean of the last feature map (B, 32) of images (B, 3, H, W)."""
        for conv, layer in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(layer, conv(x)))
        return x.mean((2, 3))

    def scale_features(self, factor: float) -> None:
        """Multiply the features by a positive factor, in place; `purer (tuned)` asks for it."""
        scale_norm(self.norms[-1], factor)
