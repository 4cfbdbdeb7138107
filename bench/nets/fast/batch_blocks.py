"""Convolution blocks that normalise by the batch's own statistics: differentiable twice."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.fast.operations import (
    cast_like,
    conv_backward,
    fast_statistics,
    maxima,
    per_channel,
    per_filter,
    refuse_graph,
    sign_of,
    sign_turned,
    signed_once,
    unpool,
)
from bench.nets.norm import at_least_float32


class _BatchBlock(torch.autograd.Function):
    """x, conv weight and bias, BN scale and shift, eps → ReLU(pool(BN(conv(x)))), own statistics.

    The statistics are part of the function: its gradient is the complete one of transductive BN.
    The convolution's bias plays no part, for the mean takes it away again; its gradient is zero.
    """

    @staticmethod
    @signed_once
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        z, mean, inverse = _convolved(x, weight, gamma, eps)
        pooled, index = F.max_pool2d(z, 2, return_indices=True)
        pooled = at_least_float32(pooled).sub_(per_channel(mean))
        return _activated(pooled, inverse, gamma, beta).to(z.dtype), z, index, pooled, mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, gamma, _, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, gamma, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        gy = gradients[0]
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
    @signed_once
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
        gz = _spread(g * per_channel(scale), z, index, mean, -scale * inverse.square() * s1 / n)
        gz.add_(*cast_like(z, per_channel(-scale * s0 / n)))
        turned = sign_turned(weight, gamma)
        gx, gw, _ = conv_backward(gz, x, turned, [needs_x, True, False])
        sign = sign_of(gamma)
        return gx, gw * per_filter(sign), inverse * s1 * sign, s0, g, s1, gz

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(*output[4:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:-1], *output[3:])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        hx, hw, h_gamma, h_beta, *_ = gradients
        refuse_graph("a block of a meta-model is differentiable twice")
        x, weight, gamma, y, z, index, pooled, mean, inverse, s0, g, s1, gz = ctx.saved_tensors
        sign, size, n = sign_of(gamma), gamma.abs(), z.numel() // z.shape[1]
        turned = sign_turned(weight, gamma)
        zero = torch.zeros_like(gamma)
        h_gamma = zero if h_gamma is None else h_gamma * sign
        h_beta = zero if h_beta is None else h_beta
        hw = None if hw is None else hw * per_filter(sign)
        q = _sum(_conv(hx, turned, z.dtype), _conv(x, hw, z.dtype))
        if q is None:
            q = torch.zeros_like(z)
        q_mean = q.mean((0, 2, 3), dtype=mean.dtype)
        kappa = (z * q).mean((0, 2, 3), dtype=mean.dtype) - mean * q_mean
        q_pooled = _at(q, index) - per_channel(q_mean)
        a = (g * q_pooled).sum((0, 2, 3))
        square, cube = inverse.square(), inverse**3
        on_s1 = h_gamma * inverse - size * cube * kappa
        g_gy = torch.addcmul(per_channel(h_beta), pooled, per_channel(on_s1))
        g_gy.addcmul_(q_pooled, per_channel(size * inverse))
        on_r = size * a - 3 * size * square * s1 * kappa + h_gamma * s1
        on_q = -size * cube * s1 / n
        constant = on_q * q_mean + on_s1 * s0 / n
        phi_z = _spread(g * per_channel(on_s1), z, index, mean, -cube * on_r / n)
        on_q, constant = cast_like(
            z, per_channel(on_q), per_channel(on_q * q_mean + on_s1 * s0 / n)
        )
        phi_z.addcmul_(q, on_q).sub_(constant)
        needs_x = ctx.needs_input_grad[1]
        gx, gw, _ = conv_backward(phi_z, x, turned, [needs_x, True, False])
        if hx is not None:
            gw += conv_backward(gz, hx, turned, [False, True, False])[1]
        if hw is not None and needs_x:
            gx += conv_backward(gz, x, hw, [True, False, False])[0]
        g_gy = torch.ops.aten.threshold_backward(g_gy.to(y.dtype), y, 0)
        g_gamma = (inverse * a - cube * s1 * kappa) * sign
        return g_gy, gx, gw * per_filter(sign), g_gamma, *[None] * 7


def _convolved(
    x: Tensor, weight: Tensor, gamma: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the convolution's output, signs turned, its mean (C,) and (variance + eps)^(-1/2)."""
    z = F.conv2d(x, sign_turned(weight, gamma), padding=1)
    mean, variance = fast_statistics(z)
    return z, mean, torch.rsqrt(variance + eps)


def _activated(centred: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Return what BN and ReLU make of maxima less the mean."""
    return torch.addcmul(per_channel(beta), centred, per_channel(gamma.abs() * inverse)).relu_()


def _without_graph(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Return the value of `_BatchBlock`, bit by bit, without what only its gradient needs."""
    z, mean, inverse = _convolved(x, weight, gamma, eps)
    centred = at_least_float32(maxima(z)).sub_(per_channel(mean))
    return _activated(centred, inverse, gamma, beta).to(z.dtype)


def _conv(x: Tensor | None, weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if x is None or weight is None:
        return None
    return F.conv2d(x.to(dtype), weight.to(dtype), padding=1)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a.add_(b)


def _spread(pooled: Tensor, z: Tensor, index: Tensor, mean: Tensor, slope: Tensor) -> Tensor:
    """Return unpool(pooled) + slope · (z - mean), of the shape of z; slope, mean (C,)."""
    pooled, slope, constant = cast_like(z, pooled, per_channel(slope), per_channel(slope * mean))
    return unpool(pooled, z, index).addcmul_(z, slope).sub_(constant)


def _at(q: Tensor, index: Tensor) -> Tensor:
    """Return the values of q (B, C, H, W) at pooling indices (B, C, h, w)."""
    rows = q.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H · W, C)
    chosen = rows.gather(1, index.permute(0, 2, 3, 1).flatten(1, 2))
    return chosen.view(*index.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


def batch_block(conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Map (B, C_in, H, W) to (B, C, H // 2, W // 2): convolution, BN by the batch, ReLU, pooling.

    The same as `bench.nets.conv4.conv_block` with `batch_norm`, differentiable twice.
    """
    if not torch.is_grad_enabled():
        return _without_graph(x, conv.weight, layer.weight, layer.bias, layer.eps)
    return _BatchBlock.apply(x, conv.weight, conv.bias, layer.weight, layer.bias, layer.eps)[0]
