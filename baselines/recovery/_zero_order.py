"""Zero-order gradients: gradient estimates from function values alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

IMAGES_AT_ONCE = 1024


@torch.no_grad()
def zero_order_gradient(
    values: Callable[[Tensor], Tensor],
    x: Tensor,
    directions: int,
    smoothing: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Estimate the gradient of each image's value by forward differences.

    d/(q·μ) · Σ (f(x + μ·u) - f(x)) · u over q directions u, uniform on the unit sphere of the
    image's d numbers. Without bias on a quadratic: E[d · u uᵀ] is the identity, and the term of
    second order is odd in u.

    Args:
        values: images (K, B, C, H, W) → values (K, B), each of one image; called for x first.
        x: images (B, C, H, W).
        directions: q, drawn for each image.
        smoothing: μ, in units of x.
        generator: CPU generator of the directions.

    Returns:
        The gradient (B, C, H, W), and the values at x (B,). Takes B · (q + 1) values.

    Source: Liu et al., "A Primer on Zeroth-Order Optimization in Signal Processing and Machine
    Learning", arXiv 2006.06224, section 3 (uniform smoothing, multi-point).
    """
    origin = values(x[None])[0]
    gradient = torch.zeros_like(x)
    at_once = max(1, IMAGES_AT_ONCE // len(x))
    for start in range(0, directions, at_once):
        k = min(at_once, directions - start)
        u = torch.randn((k, len(x), x[0].numel()), generator=generator, dtype=torch.float32)
        u = (u / u.norm(dim=-1, keepdim=True)).view(k, *x.shape).to(x)
        differences = values(x + smoothing * u) - origin  # (k, B)
        gradient += torch.einsum("kb,kb...->b...", differences, u)
    return gradient * (x[0].numel() / (directions * smoothing)), origin
