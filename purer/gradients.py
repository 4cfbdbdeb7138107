"""The inversion gradients of all teachers, by one of several equivalent backends.

`fused`    one teacher after the other, with hand-written backward passes (`bench/nets/fast`).
`stacked`  teachers of one shape as one network, with `torch.func.vmap`: fewer, larger operations.
`graphed`  `stacked`, recorded once as a CUDA graph and replayed; for pools of one shape.

They differ in rounding only. A CPU takes `fused`, so that a fit is the same bit by bit on every
machine of one kind; CUDA takes `graphed` for pools of one shape; all else takes `stacked`. The
environment variable `PURER_BENCH_STRATEGY` names another one where the device offers it.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.contract import Pool
from bench.errors import BenchError
from bench.inversion.losses import InversionWeights, pixel_terms_and_gradient
from bench.nets.fast.frozen_blocks import FoldedBlock, FrozenStatisticsNorm
from purer.network_gradient import network_gradient, saved_bytes
from purer.stacked_gradients import GraphedGradients, StackedGradients, groups_of_one_shape

VARIABLE = "PURER_BENCH_STRATEGY"
BACKENDS = ("fused", "stacked", "graphed")

PEAK = 2.5
"""What a backward pass holds at its peak, in times of what its graph keeps."""


class TeacherGradients(Protocol):
    """Computes the gradients of some teachers of a pool on their blocks."""

    @abstractmethod
    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return each teacher's gradient on its block, and the terms.

        Args:
            teachers: numbers of teachers of the pool.
            blocks: the rolled images (n_i · M, 3, H, W) of each of them, without graph.

        Returns:
            Gradients of the shapes of the blocks; terms (teachers, 5) in the order of `TERMS`.
        """


class FusedGradients:
    """`fused`: one teacher after the other, so that memory holds one teacher's activations.

    Args:
        pool: the teachers.
        labels: the labels (n_i · M,) of each teacher's block.
        weights: factors of the inversion terms.
        memory: bytes that the activations of a block may take before it is cut into chunks.
    """

    def __init__(
        self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights, memory: int
    ) -> None:
        self._teachers, self._labels, self._weights = tuple(pool), labels, weights
        self._memory = memory
        self._folded: dict[nn.BatchNorm2d, FoldedBlock] = {}
        self._chunks: dict[int, int] = {}

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `TeacherGradients`."""
        results = [self._teacher(i, block) for i, block in zip(teachers, blocks, strict=True)]
        gradients, terms = zip(*results, strict=True)
        return list(gradients), torch.stack(terms)

    def _teacher(self, index: int, block: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self._chunks:
            self._chunks[index] = self._images_per_chunk(index, block)
        net, labels = self._teachers[index].net, self._labels[index]
        tv, l2, prior = pixel_terms_and_gradient(block, self._weights)
        gradient, cross_entropy, bn = network_gradient(
            net, self._norm, _laid_out(block), labels, self._weights, self._chunks[index]
        )
        return gradient + prior, _terms(self._weights, cross_entropy, bn, tv, l2)

    def _norm(self) -> FrozenStatisticsNorm:
        return FrozenStatisticsNorm(self._folded)

    def _images_per_chunk(self, index: int, block: Tensor) -> int:
        """Return how many images' activations fit in the memory, from those of one image."""
        net = self._teachers[index].net
        image = _laid_out(block[:1].clone()).requires_grad_()
        per_image = PEAK * saved_bytes(lambda: net(image, self._norm()), held_by=net)
        return max(1, min(len(block), int(self._memory / max(1, per_image))))


def _terms(
    weights: InversionWeights, cross_entropy: Tensor, bn: Tensor, tv: Tensor, l2: Tensor
) -> Tensor:
    total = (
        weights.cross_entropy * cross_entropy
        + weights.bn_statistics * bn
        + weights.total_variation * tv
        + weights.l2 * l2
    )
    return torch.stack([total, cross_entropy, bn, tv, l2])


def _laid_out(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W), on a CPU with channels last in memory (faster pooling)."""
    if images.device.type != "cpu":
        return images.detach()
    return images.detach().contiguous(memory_format=torch.channels_last)


def offered_backends(
    pool: Pool, labels: Sequence[Tensor], weights: InversionWeights, memory: int
) -> Mapping[str, Callable[[], TeacherGradients]]:
    """Return what the labels' device offers for a pool, by name, the default first."""
    fused = {"fused": lambda: FusedGradients(pool, labels, weights, memory)}
    stacked = {"stacked": lambda: StackedGradients(pool, labels, weights)}
    graphed = {"graphed": lambda: GraphedGradients(pool, labels, weights)}
    device = labels[0].device.type
    if device == "cpu":
        return fused | stacked
    if device == "cuda" and len(groups_of_one_shape(pool, labels)) == 1:
        return graphed | stacked | fused
    return stacked | fused


def chosen_backend(offered: Collection[str]) -> str:
    """Return the backend that the environment variable names if it is offered, else the default.

    Raises:
        BenchError: it names none that exists.
    """
    named = os.environ.get(VARIABLE)
    if named and named not in BACKENDS:
        raise BenchError(
            f"{VARIABLE} = {named}; use {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, or unset it"
        )
    return named if named and named in offered else next(iter(offered))
