"""Batch norm modes of learners: by the batch's own statistics, the support's, or stored ones.

Under `vmap`, the `batch_norm` of torch (seen in 2.15) gives second-order gradients that are off by
a thousandth, silently; so batched tasks normalise in elementary operations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.contract import BnMode
from bench.learners import batching
from bench.nets.conv4 import plain_block
from bench.nets.fast.batch_blocks import batch_block
from bench.nets.norm import BlockNorm, Norm, batch_norm, batch_statistics, running_norm


class SupportStatistics:
    """The norm of BN mode `support`: collects statistics of the support, applies them to queries.

    Written out where it replays, because `batch_norm` lets no gradient into given statistics.
    """

    def __init__(self) -> None:
        self._collected: list[tuple[Tensor, Tensor]] = []

    def collect(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise the support (B, C, H, W) by its own statistics, and keep them."""
        self._collected.append(batch_statistics(x))
        return task_batch_norm(layer, x)

    def replay(self) -> Norm:
        """Return the norm of one pass over queries, layers in the order of the collecting pass."""
        collected = iter(self._collected)

        def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
            return _normalise(layer, x, *next(collected))

        return norm


def _normalise(layer: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Normalise (B, C, H, W) by given statistics (C,), (C,), all differentiable."""
    scale = layer.weight * torch.rsqrt(variance + layer.eps)
    shift = layer.bias - mean * scale
    return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def elementary_batch_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise by the batch's own statistics, in operations that work under `vmap`."""
    return _normalise(layer, x, *batch_statistics(x))


class TaskBatchNorm(BlockNorm):
    """A norm by the batch's own statistics; uses the faster implementation where it is valid."""

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return (elementary_batch_norm if batching.batches_tasks(x.device) else batch_norm)(layer, x)

    def conv_block(self, conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Compute a block of Conv4 with a fast implementation if possible; see `nets/fast`."""
        if batching.batches_tasks(x.device):
            return plain_block(self, conv, layer, x)
        return batch_block(conv, layer, x)


task_batch_norm = TaskBatchNorm()


def own_norm(bn: BnMode) -> Norm:
    """Return the norm for the pass of a support set."""
    return running_norm if bn == "running" else task_batch_norm


def query_output(
    bn: BnMode, run: Callable[[Tensor, Norm], Tensor], support_x: Tensor, query_x: Tensor
) -> Tensor:
    """Return run(query_x, norm) with the norm of the BN mode.

    Args:
        bn: the mode; `support` passes the support first to collect its statistics.
        run: a network's pass, (images, norm) → outputs.
        support_x: images (S, C, H, W).
        query_x: images (Q, C, H, W).
    """
    if bn != "support":
        return run(query_x, own_norm(bn))
    statistics = SupportStatistics()
    run(support_x, statistics.collect)
    return run(query_x, statistics.replay())


def embed_task(
    bn: BnMode, embed: Callable[[Tensor, Norm], Tensor], support_x: Tensor, query_x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the embeddings (S, D), (Q, D) of one task's images, normalised as the BN mode says.

    Args:
        bn: the mode.
        embed: (images (B, C, H, W), norm) → embeddings (B, D).
        support_x: images (S, C, H, W).
        query_x: images (Q, C, H, W).
    """
    return embed(support_x, own_norm(bn)), query_output(bn, embed, support_x, query_x)


@torch.no_grad()
def embed_each_task(
    bn: BnMode, embed: Callable[[Tensor, Norm], Tensor], support_x: Tensor, query_x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the embeddings (T, S, D), (T, Q, D) of many tasks; see `embed_task`."""
    sizes = [support_x.shape[1], query_x.shape[1]]

    def one(support_x: Tensor, _: Tensor, query_x: Tensor) -> Tensor:
        return torch.cat(embed_task(bn, embed, support_x, query_x))

    unread = torch.zeros(support_x.shape[:2], device=support_x.device)
    both = batching.over_tasks(one, support_x, unread, query_x)
    support_e, query_e = both.split(sizes, dim=1)
    return support_e, query_e
