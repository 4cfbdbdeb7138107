"""Convolution blocks with backward passes written by hand, and batch statistics in one pass.

What the automatic gradient of a block of Conv4 spends its time on is not arithmetic but passes over
the convolution's output, the largest tensor there is. Here each value of it is written once, read
for the statistics and for the pooling, and once more on the way back:

- 2×2 max-pooling comes *before* normalisation, which it commutes with where the scale is positive;
  a channel whose scale is negative has the sign of its filter turned, which is exact in floating
  point. Normalisation and ReLU then work on a quarter of the activations.
- The gradient that comes in through the statistics of a batch of n values z is
  A + B·z in each channel, with B = 2·∂L/∂variance/n and A = ∂L/∂mean/n − B·mean; it is added to the
  unpooled gradient in place.
- The data gradient of a convolution of three channels is computed for 2×2 pixels at once, 12 of
  the 16 lanes that a CPU's convolution fills at least (3 of 16 otherwise).

Where autocast makes the convolutions bfloat16, so are the activations, their gradients, and what is
added to these; statistics, their gradients and those of the parameters are float32.

The frozen blocks are differentiable once, the blocks of the meta-model twice, as second-order MAML
needs; what goes beyond is refused with an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.norm import at_least_float32, batch_statistics

Statistics = tuple[nn.BatchNorm2d, Tensor, Tensor]
"""(layer, batch mean (C,), biased batch variance (C,)) of a layer's input."""


def fast_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance (C,), (C,) of activations (B, C, H, W); no graph.

    On a CPU the kernel of batch normalisation takes a twentieth of the time of `torch.var_mean`.
    """
    if x.device.type == "cpu":
        if x.dtype != torch.bfloat16:
            return torch.batch_norm_update_stats(x, None, None, 0.0)
        zero = x.new_zeros(x.shape[1], dtype=torch.float32)  # what it is given says what it returns
        return torch.batch_norm_update_stats(x, zero, zero.clone(), 0.0)
    return batch_statistics(x)


def through_statistics(
    x: Tensor, mean: Tensor, mean_gradient: Tensor, variance_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (A, B), each (1, C, 1, 1), of the gradient A + B·x that the statistics send back.

    Args:
        x: the activations (B, C, H, W) whose statistics they are.
        mean: their mean (C,).
        mean_gradient, variance_gradient: the loss's gradients on mean and variance, (C,), (C,).
    """
    n = x.numel() // x.shape[1]
    slope = variance_gradient * (2 / n)
    constant = mean_gradient / n - slope * mean
    return constant.view(1, -1, 1, 1), slope.view(1, -1, 1, 1)


def _last_derivative(of: str) -> None:
    """Refuse to build a graph of a backward pass whose own derivative is not written.

    `once_differentiable` does not serve: where torch differentiates with respect to given inputs,
    it leaves the refusing branch out, and the result is wrong without a word.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{of}; use the norms of bench/nets/norm.py instead")


class _NormWithStatistics(torch.autograd.Function):
    """x, scale (C,), shift (C,) → scale·x + shift, batch mean, biased batch variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = fast_statistics(x)
        ctx.save_for_backward(x, scale, mean)
        y = torch.addcmul(_wide(shift), at_least_float32(x), _wide(scale)).to(x.dtype)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gy: Tensor, g_mean: Tensor, g_variance: Tensor) -> tuple[Any, ...]:
        _last_derivative("a frozen layer is differentiable once")
        x, scale, mean = ctx.saved_tensors
        constant, slope = through_statistics(x, mean, g_mean, g_variance)
        constant, slope, scale = _alike(x, constant, slope, _wide(scale))
        gradient = torch.addcmul(constant, gy, scale).addcmul_(x, slope)
        return gradient, None, None


@dataclass(frozen=True)
class FoldedBlock:
    """The constants of a frozen block: convolution, then BN in evaluation mode.

    Attributes:
        weight, bias: the convolution, its filters' signs turned where BN's scale is negative.
        sign: (C,), 1 or -1: what was turned.
        magnitude, shift: (1, C, 1, 1), the affine map that is left for the pooled values.
        quad: for a convolution of three channels, see `_quad_weight`; else None.
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
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    sign, weight = _sign(scale), _turned(conv.weight, scale)
    return FoldedBlock(
        weight,
        conv.bias * sign,
        sign,
        scale.abs().view(1, -1, 1, 1),
        (bn.bias - bn.running_mean * scale).view(1, -1, 1, 1),
        _quad_weight(weight) if weight.shape[1] == 3 else None,
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
    def backward(ctx: Any, gy: Tensor, g_mean: Tensor, g_variance: Tensor) -> tuple[Any, ...]:
        _last_derivative("a frozen layer is differentiable once")
        x, z, index, y, mean = ctx.saved_tensors
        block = ctx.block
        g_pooled = torch.ops.aten.threshold_backward(gy, y, 0).mul_(block.magnitude)
        constant, slope = through_statistics(z, mean, g_mean * block.sign, g_variance)
        constant, slope = _alike(z, constant, slope)
        gz = unpool(g_pooled, z, index).addcmul_(z, slope).add_(constant)
        return conv_data_gradient(gz, x, block.weight, block.quad), None


class _BatchBlock(torch.autograd.Function):
    """x, conv weight and bias, BN scale and shift, eps → ReLU(pool(BN(conv(x)))), own statistics.

    The statistics are part of the function: its gradient is the complete one of transductive BN.
    The convolution's bias plays no part, for the mean takes it away again; its gradient is zero.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        z = F.conv2d(x, _turned(weight, gamma), padding=1)
        mean, variance = fast_statistics(z)
        inverse = torch.rsqrt(variance + eps)
        pooled, index = F.max_pool2d(z, 2, return_indices=True)
        pooled = at_least_float32(pooled).sub_(_wide(mean))
        y = torch.addcmul(_wide(beta), pooled, _wide(gamma.abs() * inverse)).relu_()
        return y.to(z.dtype), z, index, pooled, mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, gamma, _, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, gamma, *output)

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, *_: None) -> tuple[Any, ...]:
        if gy is None:
            return (None,) * 6
        x, weight, gamma, y, *rest = ctx.saved_tensors
        gx, gw, g_gamma, g_beta, *_ = _BatchBlockGradient.apply(
            gy, x, weight, gamma, y.detach(), *rest, ctx.needs_input_grad[0]
        )
        return gx, gw, torch.zeros_like(gamma), g_gamma, g_beta, None


class _BatchBlockGradient(torch.autograd.Function):
    """The backward pass of `_BatchBlock`, as a function that can be differentiated once.

    In each channel, with n values z of mean m and r = (variance + eps)^(-1/2), their maxima p, the
    gradient g that passes the ReLU, S0 = Σ g and S1 = Σ g (p - m):

        ∂beta = S0,  ∂gamma = r S1,  ∂z = gamma r (unpool(g) - S0/n - r² S1 (z - m)/n).

    Given directions h on the results, q = conv(h_x, weight) + conv(x, h_weight) with mean q̄ and
    κ = Σ (z - m) q / n, and A = Σ g (q at the maxima - q̄), what is differentiated is

        Φ = gamma (r A - r³ S1 κ) + h_gamma r S1 + h_beta S0

    in g, gamma and z, and in x and weight through z and q; ∂Φ/∂q is ∂z above.
    """

    @staticmethod
    def forward(
        gy: Tensor,
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        y: Tensor,
        z: Tensor,
        index: Tensor,
        pooled: Tensor,
        mean: Tensor,
        inverse: Tensor,
        needs_x: bool,
    ) -> tuple[Any, ...]:
        g = at_least_float32(torch.ops.aten.threshold_backward(gy, y, 0))
        s0, s1 = g.sum((0, 2, 3)), (g * pooled).sum((0, 2, 3))
        n = z.numel() // z.shape[1]
        scale = gamma.abs() * inverse
        gz = _spread(g * _wide(scale), z, index, mean, -scale * inverse.square() * s1 / n)
        gz.add_(*_alike(z, _wide(-scale * s0 / n)))
        turned = _turned(weight, gamma)
        gx, gw, _ = _conv_backward(gz, x, turned, [needs_x, True, False])
        sign = _sign(gamma)
        return gx, gw * _filters(sign), inverse * s1 * sign, s0, g, s1, gz

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(*output[4:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:-1], *output[3:])

    @staticmethod
    def backward(
        ctx: Any,
        hx: Tensor | None,
        hw: Tensor | None,
        h_gamma: Tensor | None,
        h_beta: Tensor | None,
        *_: None,
    ) -> tuple[Any, ...]:
        _last_derivative("a block of a meta-model is differentiable twice")
        x, weight, gamma, y, z, index, pooled, mean, inverse, s0, g, s1, gz = ctx.saved_tensors
        sign, size, n = _sign(gamma), gamma.abs(), z.numel() // z.shape[1]
        turned = _turned(weight, gamma)
        zero = torch.zeros_like(gamma)
        h_gamma = zero if h_gamma is None else h_gamma * sign
        h_beta = zero if h_beta is None else h_beta
        hw = None if hw is None else hw * _filters(sign)
        q = _sum(_conv(hx, turned, z.dtype), _conv(x, hw, z.dtype))
        if q is None:
            q = torch.zeros_like(z)
        q_mean = q.mean((0, 2, 3), dtype=mean.dtype)
        kappa = (z * q).mean((0, 2, 3), dtype=mean.dtype) - mean * q_mean
        q_pooled = _at(q, index) - _wide(q_mean)
        a = (g * q_pooled).sum((0, 2, 3))
        square, cube = inverse.square(), inverse**3
        on_s1 = h_gamma * inverse - size * cube * kappa
        g_gy = torch.addcmul(_wide(h_beta), pooled, _wide(on_s1))
        g_gy.addcmul_(q_pooled, _wide(size * inverse))
        on_r = size * a - 3 * size * square * s1 * kappa + h_gamma * s1
        on_q = -size * cube * s1 / n
        phi_z = _spread(g * _wide(on_s1), z, index, mean, -cube * on_r / n)
        on_q, constant = _alike(z, _wide(on_q), _wide(on_q * q_mean + on_s1 * s0 / n))
        phi_z.addcmul_(q, on_q).sub_(constant)
        needs_x = ctx.needs_input_grad[1]
        gx, gw, _ = _conv_backward(phi_z, x, turned, [needs_x, True, False])
        if hx is not None:
            gw += _conv_backward(gz, hx, turned, [False, True, False])[1]
        if hw is not None and needs_x:
            gx += _conv_backward(gz, x, hw, [True, False, False])[0]
        g_gy = torch.ops.aten.threshold_backward(g_gy.to(y.dtype), y, 0)
        g_gamma = (inverse * a - cube * s1 * kappa) * sign
        return g_gy, gx, gw * _filters(sign), g_gamma, *[None] * 7


def _sign(gamma: Tensor) -> Tensor:
    return torch.copysign(torch.ones_like(gamma), gamma)


def _filters(x: Tensor) -> Tensor:
    return x.view(-1, 1, 1, 1)


def _turned(weight: Tensor, gamma: Tensor) -> Tensor:
    """Return filters whose sign is turned where gamma is negative, channels last."""
    return (weight * _filters(_sign(gamma))).contiguous(memory_format=torch.channels_last)


def _conv(x: Tensor | None, weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if x is None or weight is None:
        return None
    return F.conv2d(x.to(dtype), weight.to(dtype), padding=1)


def _alike(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return other tensors in the type of x."""
    return tuple(other.to(x.dtype) for other in others)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a.add_(b)


def _spread(pooled: Tensor, z: Tensor, index: Tensor, mean: Tensor, slope: Tensor) -> Tensor:
    """Return unpool(pooled) + slope · (z - mean), of the shape of z; slope, mean (C,)."""
    pooled, slope, constant = _alike(z, pooled, _wide(slope), _wide(slope * mean))
    return unpool(pooled, z, index).addcmul_(z, slope).sub_(constant)


def _at(q: Tensor, index: Tensor) -> Tensor:
    """Return the values of q (B, C, H, W) at pooling indices (B, C, h, w)."""
    rows = q.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H · W, C)
    chosen = rows.gather(1, index.permute(0, 2, 3, 1).flatten(1, 2))
    return chosen.view(*index.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


def _wide(x: Tensor) -> Tensor:
    return x.view(1, -1, 1, 1)


def unpool(gradient: Tensor, z: Tensor, index: Tensor) -> Tensor:
    """Return the gradient on z (B, C, H, W) from that on its 2×2 maxima, at their places."""
    return torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, z, [2, 2], [2, 2], [0, 0], [1, 1], False, index
    )


def conv_data_gradient(gz: Tensor, x: Tensor, weight: Tensor, quad: Tensor | None) -> Tensor:
    """Return the gradient on the input of a 3×3 convolution of padding 1.

    Args:
        gz: gradient on its output (B, C, H, W).
        x: its input (B, C_in, H, W), of which only shape and layout matter.
        weight: (C, C_in, 3, 3).
        quad: from `_quad_weight` to go that way, or None.
    """
    if quad is None or x.shape[2] % 2 or x.shape[3] % 2:
        return _conv_backward(gz, x, weight, [True, False, False])[0]
    return F.pixel_shuffle(F.conv2d(gz, quad.to(gz.dtype), stride=2, padding=1), 2).to(x.dtype)


def _conv_backward(gz: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Any, Any, Any]:
    gx, gw, gb = torch.ops.aten.convolution_backward(
        gz,
        *_alike(gz, x, weight),
        [weight.shape[0]],
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        mask,
    )
    return gx if gx is None else gx.to(x.dtype), gw if gw is None else gw.to(weight.dtype), gb


def _quad_weight(weight: Tensor) -> Tensor:
    """Return the 4×4 filters, stride 2, that give 2×2 pixels of a data gradient as 4 channels each.

    A pixel (2i + a, 2j + b) of the gradient is the sum over k, l in 0 … 2 of
    weight[:, :, k, l] · gz[2i + a + 1 - k, 2j + b + 1 - l]; a window of padding 1 starts at 2i - 1.

    Args:
        weight: (C, C_in, 3, 3).

    Returns:
        (4 · C_in, C, 4, 4), in the order that `pixel_shuffle` undoes.
    """
    n_out, n_in = weight.shape[:2]
    quad = weight.new_zeros(n_in, 2, 2, n_out, 4, 4)
    turned = weight.transpose(0, 1).flip(2, 3)  # (C_in, C, 3, 3)
    for a in range(2):
        for b in range(2):
            quad[:, a, b, :, a : a + 3, b : b + 3] = turned
    return quad.flatten(0, 2).contiguous(memory_format=torch.channels_last)


class FrozenStatisticsNorm:
    """`RecordingNorm` for a frozen net, one pass a layer, with a hand-written backward pass.

    Parameters and running statistics count as constants. Use a fresh instance for each pass.

    Args:
        folded: blocks by their BN layer, from `fold`, kept by the caller from pass to pass; missing
            ones are added.
    """

    def __init__(self, folded: dict[nn.BatchNorm2d, FoldedBlock]):
        self.layers: list[Statistics] = []
        self._folded = folded

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        scale = layer.weight * torch.rsqrt(layer.running_var + layer.eps)
        shift = layer.bias - layer.running_mean * scale
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


def batch_block(conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Map (B, C_in, H, W) to (B, C, H // 2, W // 2): convolution, BN by the batch, ReLU, pooling.

    The same as `bench.nets.conv4.conv_block` with `batch_norm`, differentiable twice.
    """
    return _BatchBlock.apply(x, conv.weight, conv.bias, layer.weight, layer.bias, layer.eps)[0]
