"""The inversion gradient of one network on one block of pseudo images, in bounded memory.

A block may be larger than the memory it is given: then the statistics of the whole block are
gathered first, without a graph, and each chunk is differentiated through the known gradients of the
loss on them, so that chunks change nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bench.contract import Backbone
from bench.inversion.losses import InversionWeights, bn_statistics_term
from bench.nets.norm import LayerStatistics, StatisticsNorm


def saved_bytes(run: Callable[[], object], held_by: nn.Module) -> int:
    """Return the bytes of the distinct storages that a differentiable computation keeps.

    Args:
        run: the computation.
        held_by: a module whose parameters and buffers are there anyway, and do not count.
    """
    sizes: dict[int, int] = {}
    held = [*held_by.parameters(), *held_by.buffers()]
    places = {tensor.untyped_storage().data_ptr() for tensor in held}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in places:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(sizes.values())


def network_gradient(
    net: Backbone,
    make_norm: Callable[[], StatisticsNorm],
    images: Tensor,
    labels: Tensor,
    weights: InversionWeights,
    images_per_chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the network's terms of the inversion loss, and both terms.

    Args:
        net: a frozen network.
        make_norm: gives the norm of one pass, which records statistics.
        images: the block (B, 3, H, W).
        labels: (B,).
        weights: factors; those of the pixels play no part.
        images_per_chunk: the block is differentiated in pieces of so many images.

    Returns:
        Gradient (B, 3, H, W) of the weighted sum; cross-entropy and distance to the BN statistics,
        both 0-d and unweighted.
    """
    if images_per_chunk >= len(images):
        images = images.detach().requires_grad_()
        norm = make_norm()
        cross_entropy = F.cross_entropy(net(images, norm), labels)
        bn = bn_statistics_term(norm.layers, cross_entropy)
        total = weights.cross_entropy * cross_entropy + weights.bn_statistics * bn
        (gradient,) = torch.autograd.grad(total, images)
        return gradient, cross_entropy.detach(), bn.detach()
    chunks = images.detach().split(images_per_chunk)
    logits, layers = _statistics_of_all(net, make_norm, chunks)
    leaves = [logits, *(value for layer in layers for value in layer[1:])]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    cross_entropy = F.cross_entropy(logits, labels)
    bn = bn_statistics_term(layers, cross_entropy)
    total = weights.cross_entropy * cross_entropy + weights.bn_statistics * bn
    on_logits, *on_statistics = torch.autograd.grad(total, leaves)
    gradients = []
    for chunk, on_chunk in zip(chunks, on_logits.split(images_per_chunk), strict=True):
        chunk = chunk.requires_grad_()
        norm = make_norm()
        surrogate = (net(chunk, norm) * on_chunk).sum()
        share = len(chunk) / len(images)
        for k, (_, mean, variance) in enumerate(norm.layers):
            # of n values x: ∂mean/∂x = 1/n, ∂variance/∂x = 2 (x - mean)/n, with all images' mean
            from_mean = variance + (mean - layers[k][1].detach()).square()
            on_mean, on_variance = on_statistics[2 * k : 2 * k + 2]
            surrogate = surrogate + share * ((on_mean * mean) + (on_variance * from_mean)).sum()
        gradients.append(torch.autograd.grad(surrogate, chunk)[0])
    return torch.cat(gradients), cross_entropy.detach(), bn.detach()


@torch.no_grad()
def _statistics_of_all(
    net: Backbone,
    make_norm: Callable[[], StatisticsNorm],
    chunks: Sequence[Tensor],
) -> tuple[Tensor, list[LayerStatistics]]:
    """Return the logits (B, n) and each layer's statistics over all chunks together."""
    logits, passes = [], []
    for chunk in chunks:
        norm = make_norm()
        logits.append(net(chunk, norm))
        passes.append(norm.layers)
    sizes = torch.tensor([len(chunk) for chunk in chunks], dtype=logits[0].dtype)
    shares = (sizes / sizes.sum()).to(logits[0].device)[:, None]
    layers = []
    for parts in zip(*passes, strict=True):
        means = torch.stack([mean for _, mean, _ in parts])  # (chunks, C)
        variances = torch.stack([variance for _, _, variance in parts])
        mean = (shares * means).sum(0)
        layers.append((parts[0][0], mean, (shares * (variances + (means - mean) ** 2)).sum(0)))
    return torch.cat(logits), layers
