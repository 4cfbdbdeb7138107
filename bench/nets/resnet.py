"""ResNet10 and ResNet18 for small images, as used in data-free meta-learning."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.base import Backbone, scale_norm
from bench.nets.norm import Norm, running_norm


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BN and a shortcut (1×1 convolution and BN where shapes change)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        changes = stride != 1 or n_in != n_out
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if changes else None
        self.shortcut_bn = nn.BatchNorm2d(n_out) if changes else None

    def forward(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H / stride, W / stride)."""
        y = F.relu(norm(self.bn1, self.conv1(x)))
        y = norm(self.bn2, self.conv2(y))
        if self.shortcut is not None and self.shortcut_bn is not None:
            x = norm(self.shortcut_bn, self.shortcut(x))
        return F.relu(y + x)


class ResNet(Backbone):
    """Widths 64-128-256-512, global average pooling, 512 features, any image size.

    The stem is a 3×3 convolution of stride 1 and BN, with no ReLU and no pooling after it.
    """

    def __init__(self, blocks: tuple[int, int, int, int], n_classes: int, image_size: int) -> None:
        super().__init__()
        if image_size < 8:
            raise ValueError(f"image_size {image_size}: three halvings need at least 8 pixels")
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(64)
        layers, width = [], 64
        for stage, n_blocks in enumerate(blocks):
            for index in range(n_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(BasicBlock(width, 64 * 2**stage, stride))
                width = 64 * 2**stage
        self.blocks = nn.ModuleList(layers)
        self.n_features = width
        self.head = nn.Linear(width, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the globally averaged last feature map (B, 512)."""
        x = norm(self.stem_bn, self.stem(x))
        for block in self.blocks:
            x = block(x, norm)
        return x.mean((2, 3))

    def scale_features(self, factor: float) -> None:
        """Scale both branches of the last block, and of those before it that it passes on."""
        for block in reversed([one for one in self.blocks if isinstance(one, BasicBlock)]):
            scale_norm(block.bn2, factor)
            if block.shortcut_bn is not None:
                scale_norm(block.shortcut_bn, factor)
                return


class ResNet10(ResNet):
    """1-1-1-1 basic blocks; 4,900,677 parameters five-way, 12 BN layers."""

    def __init__(self, n_classes: int, image_size: int) -> None:
        super().__init__((1, 1, 1, 1), n_classes, image_size)


class ResNet18(ResNet):
    """2-2-2-2 basic blocks; 11,171,397 parameters five-way, 20 BN layers."""

    def __init__(self, n_classes: int, image_size: int) -> None:
        super().__init__((2, 2, 2, 2), n_classes, image_size)
