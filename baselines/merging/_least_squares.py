"""Layers that map one network's inputs to given outputs, by least squares in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from baselines.merging._layers import layer_entries, layer_of
from bench.contract import Backbone

RIDGE = 1e-6
"""Pull towards given weights, relative to the mean square of a layer's inputs: decides where inputs
never vary, and is lost in rounding elsewhere."""


def with_ridge(gram: Tensor) -> Tensor:
    """Return inner products (…, d, d) with the ridge added to their diagonal."""
    return gram + ridge_of(gram) * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def ridge_of(gram: Tensor) -> Tensor:
    """Return the ridge of inner products (…, d, d), from the mean diagonal of the whole layer."""
    return RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean()


def solved_entries(net: Backbone, sums: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the entries of a state whose layers solve their normal equations.

    Args:
        net: of the architecture; its weights play no part.
        sums: by layer name, inner products (…, d, d) of its inputs, in the order of
            `layer_weight`, and of its inputs with the outputs wanted, (…, d, outputs).
    """
    found: dict[str, Tensor] = {}
    for name, (gram, target) in sums.items():
        solution = torch.linalg.solve(gram, target)
        found |= layer_entries(name, layer_of(net, name), solution)
    return found
