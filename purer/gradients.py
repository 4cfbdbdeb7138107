"""The inversion gradients of all teachers, in one of several ways that give the same numbers.

`plain`    one teacher after the other, by automatic differentiation.
`fused`    the same with hand-written blocks (`bench/nets/fast/fused.py`): fewer passes over memory.
`stacked`  teachers of one shape as one, with `torch.func.vmap`: fewer, larger operations.
`graphed`  `stacked`, recorded once as a CUDA graph and replayed.

They differ in rounding only. Which one is fastest depends on device and shape; `FitContext.choose`
decides, once for a fit. On a CPU a block may be larger than the memory it is given: then the
statistics of the whole block are gathered first, without a graph, and each chunk is differentiated
through the known gradients of the loss on them, so that chunks change nothing but rounding.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bench.contract import Pool
from bench.inversion.losses import (
    TERMS,
    InversionWeights,
    bn_statistics_term,
    inversion_loss,
    pixel_terms_and_gradient,
)
from bench.nets.base import Backbone
from bench.nets.fast.fused import FoldedBlock, FrozenStatisticsNorm
from bench.nets.fast.graphs import Graphed
from bench.nets.fast.stacked import StackedNets
from bench.nets.norm import RecordingNorm

Layers = list[tuple[nn.BatchNorm2d, Tensor, Tensor]]

PEAK = 2.5
"""What a backward pass holds at its peak, in times of what its graph keeps."""


class TeacherPasses(Protocol):
    """A way to compute the gradients of all teachers."""

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


class OneByOne:
    """`plain` and `fused`: one teacher after the other, so that memory holds one's activations.

    Args:
        pool: the teachers.
        labels: the labels (n_i · M,) of each teacher's block.
        weights: factors of the inversion terms.
        memory: bytes that the activations of a block may take before it is cut into chunks.
        fused: whether blocks are hand-written.
    """

    def __init__(
        self,
        pool: Pool,
        labels: Sequence[Tensor],
        weights: InversionWeights,
        memory: int,
        fused: bool,
    ):
        self._teachers, self._labels, self._weights = tuple(pool), labels, weights
        self._memory, self._fused = memory, fused
        self._folded: dict[nn.BatchNorm2d, FoldedBlock] = {}
        self._chunks: dict[int, int] = {}

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `TeacherPasses`."""
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

    def _norm(self) -> RecordingNorm | FrozenStatisticsNorm:
        return FrozenStatisticsNorm(self._folded) if self._fused else RecordingNorm()

    def _images_per_chunk(self, index: int, block: Tensor) -> int:
        """Return how many images' activations fit in the memory, from what one image saves."""
        net = self._teachers[index].net
        image = _laid_out(block[:1].clone()).requires_grad_()
        per_image = PEAK * saved_bytes(lambda: net(image, self._norm()), held_by=net)
        return max(1, min(len(block), int(self._memory / max(1, per_image))))


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
    make_norm: Callable[[], RecordingNorm | FrozenStatisticsNorm],
    images: Tensor,
    labels: Tensor,
    weights: InversionWeights,
    images_per_chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of what the network says of its images, and its two terms.

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
    make_norm: Callable[[], RecordingNorm | FrozenStatisticsNorm],
    chunks: Sequence[Tensor],
) -> tuple[Tensor, Layers]:
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


class Stacked:
    """`stacked`: teachers of one architecture, head and block size run as one.

    Args: as for `OneByOne`; memory is not bounded here.
    """

    def __init__(self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights):
        alike: defaultdict[tuple, list[int]] = defaultdict(list)
        for index, teacher in enumerate(pool):
            adapted = vars(teacher.net).get("features")  # reads pixels in a way of its own
            alike[(teacher.spec, adapted, len(labels[index]))].append(index)
        self._groups = [_Group(pool, indices, labels, weights) for indices in alike.values()]

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `TeacherPasses`."""
        places, members = self.places(teachers), self.members(teachers)
        *gradients, terms = self.run(places, [*members, *blocks])
        return gradients, terms

    def places(self, teachers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return, for each group, the places of its members among the teachers given."""
        return tuple(
            tuple(place for place, index in enumerate(teachers) if index in group.place_of)
            for group in self._groups
        )

    def members(self, teachers: Sequence[int]) -> list[Tensor]:
        """Return, for each group, the numbers in it of those given, on its device."""
        return [group.members(teachers) for group in self._groups]

    def run(self, places: Sequence[Sequence[int]], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return each block's gradient, then the terms, from the groups' members and the blocks."""
        members, blocks = inputs[: len(self._groups)], inputs[len(self._groups) :]
        gradients, terms = list(blocks), list(blocks)
        for group, where, who in zip(self._groups, places, members, strict=True):
            if where:
                stacked = group(who, torch.stack([blocks[place] for place in where]))
                for place, gradient, values in zip(where, *stacked, strict=True):
                    gradients[place], terms[place] = gradient, values
        return [*gradients, torch.stack(terms)]


class _Group:
    """Teachers of one shape; `place_of` numbers them within the group."""

    def __init__(
        self,
        pool: Pool,
        indices: Sequence[int],
        labels: Sequence[Tensor],
        weights: InversionWeights,
    ):
        self.place_of = {index: place for place, index in enumerate(indices)}
        self._labels = torch.stack([labels[index] for index in indices])
        self._numbers = torch.arange(len(indices), device=self._labels.device)

        def terms(net: Backbone, images: Tensor, labels: Tensor) -> Tensor:
            loss = inversion_loss(net, images, labels, weights)
            return torch.stack([getattr(loss, name) for name in TERMS.values()])

        self._nets = StackedNets([pool[index].net for index in indices], terms)

    def members(self, teachers: Sequence[int]) -> Tensor:
        """Return the numbers within the group of those teachers that are in it.

        Put together on the device: a copy from the CPU would have both wait at each step.
        """
        places = [self.place_of[index] for index in teachers if index in self.place_of]
        if not places:
            return self._numbers[:0]
        return torch.cat([self._numbers[place : place + 1] for place in places])

    def __call__(self, members: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        terms = self._nets(members, images, self._labels[members])  # (members, 5)
        (gradient,) = torch.autograd.grad(terms[:, 0].sum(), images)
        return gradient, terms.detach()


class GraphedPasses:
    """`graphed`: `Stacked` as one CUDA graph for each arrangement of a step's teachers."""

    MOST_GRAPHS = 8
    """Arrangements beyond this number run without a graph."""

    def __init__(self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights):
        self._stacked = Stacked(pool, labels, weights)
        self._graphs: dict[tuple[tuple[int, ...], ...], Graphed] = {}

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `TeacherPasses`."""
        places = self._stacked.places(teachers)
        inputs = [*self._stacked.members(teachers), *blocks]
        if places not in self._graphs:
            if len(self._graphs) == self.MOST_GRAPHS:
                return self._stacked(teachers, blocks)
            run = functools.partial(self._run, places)
            self._graphs[places] = Graphed(run, inputs)
        *gradients, terms = self._graphs[places](inputs)
        return gradients, terms

    def _run(self, places: tuple[tuple[int, ...], ...], *inputs: Tensor) -> list[Tensor]:
        return self._stacked.run(places, inputs)


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
    """Return images (B, 3, H, W) with channels last in memory on a CPU, where pooling likes it."""
    if images.device.type != "cpu":
        return images.detach()
    return images.detach().contiguous(memory_format=torch.channels_last)


def candidates(
    pool: Pool, labels: Sequence[Tensor], weights: InversionWeights, memory: int
) -> Mapping[str, Callable[[], TeacherPasses]]:
    """Return the ways that a device offers, by name, the one to take without measuring first."""
    device = labels[0].device
    ways: dict[str, Callable[[], TeacherPasses]] = {
        "fused": lambda: OneByOne(pool, labels, weights, memory, fused=True),
        "plain": lambda: OneByOne(pool, labels, weights, memory, fused=False),
        "stacked": lambda: Stacked(pool, labels, weights),
    }
    if device.type == "cuda":
        ways = {
            "graphed": lambda: GraphedPasses(pool, labels, weights),
            "stacked": ways["stacked"],
            "plain": ways["plain"],
        }
    return ways
