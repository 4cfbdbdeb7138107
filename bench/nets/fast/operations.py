"""Shared operations of the hand-written blocks: statistics, layouts, gradients.

What the automatic gradient of a block of Conv4 spends its time on is not arithmetic but passes over
the convolution's output, the largest tensor there is. In the blocks of this folder each value of it
is written once, read for the statistics and for the pooling, and once more on the way back:

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

The frozen blocks are differentiable once (`frozen_blocks.py`), the blocks of the meta-model twice
(`batch_blocks.py`), as second-order MAML needs; what goes beyond is refused with an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.nets.norm import batch_statistics

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def signed_once(forward: AnyFunction) -> AnyFunction:
    """Keep the signature of a `forward` with the function.

    `torch.autograd.Function.apply` asks for it at each call, which takes longer than some kernels.
    """
    vars(forward)["__signature__"] = inspect.signature(forward)
    return forward


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
        mean_gradient: the loss's gradient on the mean (C,).
        variance_gradient: the same on the variance (C,).
    """
    n = x.numel() // x.shape[1]
    slope = variance_gradient * (2 / n)
    constant = mean_gradient / n - slope * mean
    return constant.view(1, -1, 1, 1), slope.view(1, -1, 1, 1)


def refuse_graph(reason: str) -> None:
    """Refuse to build a graph of a backward pass whose own derivative is not written.

    `once_differentiable` does not serve: where torch differentiates with respect to given inputs,
    it leaves the refusing branch out, and the result is wrong without a word.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{reason}; use the norms of bench/nets/norm.py instead")


def sign_of(gamma: Tensor) -> Tensor:
    """Return 1 or -1 for each value, and 1 for 0."""
    return torch.copysign(torch.ones_like(gamma), gamma)


def per_filter(x: Tensor) -> Tensor:
    """Return values (C,) in the shape (C, 1, 1, 1) of a convolution's filters."""
    return x.view(-1, 1, 1, 1)


def sign_turned(weight: Tensor, gamma: Tensor) -> Tensor:
    """Return filters whose sign is turned where gamma is negative, channels last."""
    return (weight * per_filter(sign_of(gamma))).contiguous(memory_format=torch.channels_last)


def cast_like(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return other tensors in the dtype of x."""
    return tuple(other.to(x.dtype) for other in others)


def per_channel(x: Tensor) -> Tensor:
    """Return values (C,) in the shape (1, C, 1, 1) of activations."""
    return x.view(1, -1, 1, 1)


def maxima(z: Tensor) -> Tensor:
    """Return the maxima (B, C, H // 2, W // 2) of z (B, C, H, W) over 2×2 pixels.

    The values of `max_pool2d`, which also notes where they are: less than half of its time.
    """
    height, width = z.shape[2] // 2 * 2, z.shape[3] // 2 * 2
    rows = torch.maximum(z[:, :, :height, 0:width:2], z[:, :, :height, 1:width:2])
    return torch.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


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
        quad: from `quad_weight`, to compute 2×2 pixels at once; or None.
    """
    if quad is None or x.shape[2] % 2 or x.shape[3] % 2:
        return conv_backward(gz, x, weight, [True, False, False])[0]
    return F.pixel_shuffle(F.conv2d(gz, quad.to(gz.dtype), stride=2, padding=1), 2).to(x.dtype)


def conv_backward(gz: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Any, Any, Any]:
    """Return the gradients of a 3×3 convolution of padding 1: input, weight and bias, or None.

    Args:
        gz: gradient on its output (B, C, H, W).
        x: its input (B, C_in, H, W).
        weight: (C, C_in, 3, 3).
        mask: which of the three are wanted.
    """
    gx, gw, gb = torch.ops.aten.convolution_backward(
        gz,
        *cast_like(gz, x, weight),
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


def quad_weight(weight: Tensor) -> Tensor:
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
