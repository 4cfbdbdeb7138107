"""Permute the channels of a network's state along the axes that `Backbone.channel_axes` names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.contract import Teacher
from bench.nets.channels import Axis

State = Mapping[str, Tensor]
Permutations = Mapping[str, Tensor]
"""For each group (n,): which old channel stands at each new place."""


def channel_axes(teacher: Teacher) -> tuple[Axis, ...]:
    """Return the channel axes of a teacher's network.

    Raises:
        Skip: its channels cannot be followed.
    """
    return teacher.net.channel_axes(teacher.spec.image_size)


def groups_of(axes: tuple[Axis, ...]) -> tuple[str, ...]:
    """Return the distinct groups, in order."""
    return tuple(dict.fromkeys(axis.group for axis in axes))


def group_sizes(state: State, axes: tuple[Axis, ...]) -> dict[str, int]:
    """Return the number of channels of each group."""
    return {axis.group: state[axis.entry].shape[axis.dim] // axis.block for axis in axes[::-1]}


def present(state: State, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the axes of those entries that a state has."""
    return tuple(axis for axis in axes if axis.entry in state)


def permute(state: State, axes: tuple[Axis, ...], permutations: Permutations) -> dict[str, Tensor]:
    """Return a state with permuted channels; it describes the same function.

    Args:
        state: the state; entries without channels are kept.
        axes: the channel axes.
        permutations: for some or all groups, (n,) the old place of the channel at each new place.
    """
    moved = dict(state)
    for axis in present(state, axes):
        if axis.group in permutations:
            places = positions(permutations[axis.group], axis.block)
            value = moved[axis.entry]
            moved[axis.entry] = value.index_select(axis.dim, places.to(value.device))
    return moved


def positions(channels: Tensor, block: int) -> Tensor:
    """Return the positions (n · block,) along an axis that channels (n,) occupy."""
    return (channels.unsqueeze(1) * block + torch.arange(block, device=channels.device)).flatten()


def by_channel(value: Tensor, axis: Axis) -> Tensor:
    """Return an entry as one row for each channel of an axis, (n, rest)."""
    front = value.detach().movedim(axis.dim, 0)
    return front.reshape(front.shape[0] // axis.block, -1)
