"""The inversion gradients of teachers of one shape at once, with `torch.func.vmap`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import Backbone, Pool
from bench.inversion.losses import TERMS, InversionWeights, inversion_loss
from bench.nets.fast.graphs import Graphed
from bench.nets.fast.stacked import StackedNets


def groups_of_one_shape(pool: Pool, labels: Sequence[Tensor]) -> list[list[int]]:
    """Return the numbers of the teachers that share architecture, head and block size."""
    alike: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, teacher in enumerate(pool):
        adapted = vars(teacher.net).get("features")  # an adapted teacher reads pixels its own way
        alike[(teacher.spec, adapted, len(labels[index]))].append(index)
    return list(alike.values())


class StackedGradients:
    """`stacked`: the teachers of one shape are computed as one network.

    All of a step's teachers are held in memory at once.

    Args:
        pool: the teachers.
        labels: the labels (n_i · M,) of each teacher's block.
        weights: factors of the inversion terms.
    """

    def __init__(self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights) -> None:
        groups = groups_of_one_shape(pool, labels)
        self._groups = [_Group(pool, indices, labels, weights) for indices in groups]

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `purer.gradients.TeacherGradients`."""
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
    ) -> None:
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


class GraphedGradients:
    """`graphed`: `stacked` as a CUDA graph, for pools of one shape.

    One graph is recorded for each number of teachers that a step takes.

    Args: as for `StackedGradients`.
    """

    def __init__(self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights) -> None:
        self._stacked = StackedGradients(pool, labels, weights)
        self._graphs: dict[int, Graphed] = {}

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """See `purer.gradients.TeacherGradients`."""
        places = self._stacked.places(teachers)
        inputs = [*self._stacked.members(teachers), *blocks]
        if len(teachers) not in self._graphs:
            graph = Graphed(lambda *inputs: self._stacked.run(places, inputs), inputs)
            self._graphs[len(teachers)] = graph
        *gradients, terms = self._graphs[len(teachers)](inputs)
        return gradients, terms
