"""Match the channels of two networks by linear assignment.

Entries vote for a match if they are learnt and below the head: running statistics follow from the
weights, and the rows of the heads stand for different classes in each teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from baselines.merging._channels import (
    Permutations,
    State,
    by_channel,
    group_sizes,
    groups_of,
    permute,
)
from baselines.merging._merging import on_host
from bench.nets.channels import Axis

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Entry by entry, one row for each channel: of the reference (n, d), of the other (n, d)."""

IMPROVEMENT = 1e-6
"""Smallest relative gain of a match that counts; below it lies the rounding of sums."""


def voting_axes(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the axes whose entries enter the match."""
    return tuple(
        axis
        for axis in axes
        if not axis.entry.startswith("head.") and axis.entry.endswith((".weight", ".bias"))
    )


def identity(state: State, axes: tuple[Axis, ...]) -> dict[str, Tensor]:
    """Return the identity permutations."""
    return {group: torch.arange(n) for group, n in group_sizes(state, axes).items()}


def assignment(scores: Tensor) -> Tensor:
    """Return the assignment (n,) of rows to columns of scores (n, n) with the highest total."""
    from scipy.optimize import linear_sum_assignment  # a second on a slow machine

    _, columns = linear_sum_assignment(on_host(scores).numpy(), maximize=True)
    return torch.from_numpy(columns)


def inner_products(pairs: Pairs) -> Tensor:
    """Return the summed inner products (n, n) of all pairs of channels."""
    return reduce(torch.add, (a @ b.T for a, b in pairs))


def negative_distances(pairs: Pairs) -> Tensor:
    """Return minus the Euclidean distances (n, n) between all pairs of channels."""
    a, b = (torch.cat(rows, dim=1) for rows in zip(*pairs, strict=True))
    squares = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return -squares.clamp_min(0).sqrt()


def layerwise_match(
    reference: State,
    other: State,
    axes: tuple[Axis, ...],
    scores: Callable[[Pairs], Tensor],
) -> dict[str, Tensor]:
    """Match the channels of a network to a reference's, group by group from the input.

    Each group is matched on the entries whose other channels have been matched before, so a
    permuted copy is recognised exactly: the first layer reads pixels, which all networks share.

    Args:
        reference: a state.
        other: a state of the same architecture.
        axes: the channel axes.
        scores: (channels' entries) → (n, n), higher is more alike.

    Returns:
        For each group (n,): which channel of `other` stands for each of the reference's.
    """
    votes = voting_axes(axes)
    permutations: dict[str, Tensor] = {}
    for group in groups_of(axes):
        pairs = []
        for axis in (a for a in votes if a.group == group):
            rest = {a.group for a in axes if a.entry == axis.entry and a.dim != axis.dim}
            if rest <= set(permutations):
                known = permute({axis.entry: other[axis.entry]}, axes, permutations)
                pairs.append(
                    (by_channel(reference[axis.entry], axis), by_channel(known[axis.entry], axis))
                )
        permutations[group] = assignment(scores(pairs))
    return permutations


def weight_match(
    reference: State,
    other: State,
    axes: tuple[Axis, ...],
    start: Permutations,
    generator: torch.Generator,
    max_sweeps: int,
) -> dict[str, Tensor]:
    """Increase the inner product of all voting entries group by group until no group gains.

    Args:
        reference: a state.
        other: a state of the same architecture.
        axes: the channel axes.
        start: where to begin, for every group.
        generator: CPU generator of the order of groups.
        max_sweeps: sweeps over all groups at most.

    Returns:
        For each group (n,): which channel of `other` stands for each of the reference's.

    Source: Ainsworth et al., arXiv 2209.04836, algorithm 1.
    """
    permutations, groups, votes = dict(start), groups_of(axes), voting_axes(axes)
    for _ in range(max_sweeps):
        changed = False
        for index in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[index]
            own = [axis for axis in votes if axis.group == group]
            rest = {name: p for name, p in permutations.items() if name != group}
            moved = permute({axis.entry: other[axis.entry] for axis in own}, axes, rest)
            pairs = [
                (by_channel(reference[a.entry], a), by_channel(moved[a.entry], a)) for a in own
            ]
            scores = on_host(inner_products(pairs))
            found = assignment(scores)
            if _gains(scores, found, permutations[group]):
                permutations[group], changed = found, True
        if not changed:
            break
    return permutations


def _gains(scores: Tensor, found: Tensor, held: Tensor) -> bool:
    rows = torch.arange(len(scores))
    gain = scores[rows, found].sum() - scores[rows, held].sum()
    return bool(gain > IMPROVEMENT * scores.abs().max())
