"""Frozen convolution blocks that record batch statistics: differentiable once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.fast.operations import (
    cast_like,
    conv_data_gradient,
    fast_statistics,
    per_channel,
    quad_weight,
    refuse_graph,
    sign_of,
    sign_turned,
    through_statistics,
    unpool,
)
from bench.nets.norm import BlockNorm, LayerStatistics, at_least_float32, running_statistics


class _NormWithStatistics(torch.autograd.Function):
    """x, scale (C,), shift (C,) → scale·x + shift, batch mean, biased batch variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = fast_statistics(x)
        ctx.save_for_backward(x, scale, mean)
        y = torch.addcmul(per_channel(shift), at_least_float32(x), per_channel(scale)).to(x.dtype)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        gy, g_mean, g_variance = gradients
        refuse_graph("a frozen layer is differentiable once")
        x, scale, mean = ctx.saved_tensors
        constant, slope = through_statistics(x, mean, g_mean, g_variance)
        constant, slope, scale = cast_like(x, constant, slope, per_channel(scale))
        gradient = torch.addcmul(constant, gy, scale).addcmul_(x, slope)
        return gradient, None, None


@dataclass(frozen=True)
class FoldedBlock:
    """The constants of a frozen block: convolution, then BN in evaluation mode.

    Attributes:
        weight, bias: the convolution, its filters' signs turned where BN's scale is negative.
        sign: (C,), 1 or -1: what was turned.
        magnitude, shift: (1, C, 1, 1), the affine map that is left for the pooled values.
        quad: for a convolution of three channels, see `quad_weight`; else None.
    """

    weight: Tensor
    bias: Tensor
    sign: Tensor
    magnitude: Tensor
    shift: Tensor
    quad: Tensor | None


@torch.no_grad()
def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> FoldedBlock:
    """Return the constants of a frozen 3×3 convolution and the BN layer after it."""
    mean, variance = running_statistics(bn)
    scale = bn.weight * torch.rsqrt(variance + bn.eps)
    sign, weight = sign_of(scale), sign_turned(conv.weight, scale)
    return FoldedBlock(
        weight,
        sign * (0.0 if conv.bias is None else conv.bias),
        sign,
        scale.abs().view(1, -1, 1, 1),
        (bn.bias - mean * scale).view(1, -1, 1, 1),
        quad_weight(weight) if weight.shape[1] == 3 else None,
    )


class _FrozenBlock(torch.autograd.Function):
    """x, folded constants → ReLU(BN(pool(conv(x)))), and the statistics of conv(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: FoldedBlock) -> tuple[Tensor, Tensor, Tensor]:
        z = F.conv2d(x, block.weight, block.bias, padding=1)
        mean, variance = fast_statistics(z)
        pooled, index = F.max_pool2d(z, 2, return_indices=True)
        y = torch.addcmul(block.shift, at_least_float32(pooled), block.magnitude)
        y = y.relu_().to(z.dtype)
        ctx.block = block
        ctx.save_for_backward(x, z, index, y, mean)
        return y, mean * block.sign, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        gy, g_mean, g_variance = gradients
        refuse_graph("a frozen layer is differentiable once")
        x, z, index, y, mean = ctx.saved_tensors
        block = ctx.block
        g_pooled = torch.ops.aten.threshold_backward(gy, y, 0).mul_(block.magnitude)
        constant, slope = through_statistics(z, mean, g_mean * block.sign, g_variance)
        constant, slope = cast_like(z, constant, slope)
        gz = unpool(g_pooled, z, index).addcmul_(z, slope).add_(constant)
        return conv_data_gradient(gz, x, block.weight, block.quad), None


class FrozenStatisticsNorm(BlockNorm):
    """`RecordingNorm` for a frozen net, one pass per layer, with a hand-written backward pass.

    Parameters and running statistics count as constants. Use a fresh instance for each pass.

    Args:
        folded: blocks by their BN layer, from `fold`, kept by the caller from pass to pass; missing
            ones are added.
    """

    def __init__(self, folded: dict[nn.BatchNorm2d, FoldedBlock]) -> None:
        self.layers: list[LayerStatistics] = []
        self._folded = folded

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        seen_mean, seen_variance = running_statistics(layer)
        scale = layer.weight * torch.rsqrt(seen_variance + layer.eps)
        shift = layer.bias - seen_mean * scale
        y, mean, variance = _NormWithStatistics.apply(x, scale, shift)
        self.layers.append((layer, mean, variance))
        return y

    def conv_block(self, conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H // 2, W // 2): convolution, BN, ReLU, pooling."""
        if layer not in self._folded:
            self._folded[layer] = fold(conv, layer)
        y, mean, variance = _FrozenBlock.apply(x, self._folded[layer])
        self.layers.append((layer, mean, variance))
        return y
