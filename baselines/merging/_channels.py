"""Which axes of a network's state belong to which channels, so that channels can be moved.

A hidden channel may be moved without changing the network, if every entry that writes or reads it
moves along: the rows of the convolution, its bias, the batch norm's scale, shift and statistics,
and the columns of each layer that reads it. Channels that are added to one another (a residual
stream) form one group and move together. The head reads a flattened channel as a block of columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.nets.conv4 import Conv4
from bench.nets.resnet import ResNet

State = Mapping[str, Tensor]
Permutations = Mapping[str, Tensor]
"""For each group (n,): which old channel stands at each new place."""

NORM_ENTRIES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Axis:
    """One axis of one entry of a state: `block` consecutive positions for each channel of `group`.

    Along axis 0 the entry writes the channels, along axis 1 it reads them.
    """

    entry: str
    dim: int
    group: str
    block: int = 1


@singledispatch
def channel_axes(net: nn.Module) -> tuple[Axis, ...]:
    """Return the channel axes of a network, groups in the order in which a pass meets them.

    Register a function for a network of your own with `channel_axes.register`.

    Raises:
        BenchError: nothing is known about this kind of network.
    """
    raise BenchError(
        f"the channels of a {type(net).__name__} are unknown here; "
        "register them with baselines.channels.channel_axes.register"
    )


@channel_axes.register
def _conv4_axes(net: Conv4) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    read = None
    for index in range(len(net.convs)):
        group = f"convs.{index}"
        axes += _layer(group, f"norms.{index}", group, read)
        axes.append(Axis(f"{group}.bias", 0, group))
        read = group
    axes.append(Axis("head.weight", 1, read, net.n_features // net.convs[-1].out_channels))
    return tuple(axes)


@channel_axes.register
def _resnet_axes(net: ResNet) -> tuple[Axis, ...]:
    stream = "stem"
    axes = _layer("stem", "stem_bn", stream, None)
    for index, block in enumerate(net.blocks):
        name, read, inner = f"blocks.{index}", stream, f"blocks.{index}.inner"
        axes += _layer(f"{name}.conv1", f"{name}.bn1", inner, read)
        if block.shortcut is not None:
            stream = name
            axes += _layer(f"{name}.shortcut", f"{name}.shortcut_bn", stream, read)
        axes += _layer(f"{name}.conv2", f"{name}.bn2", stream, inner)
    axes.append(Axis("head.weight", 1, stream))
    return tuple(axes)


def _layer(conv: str, norm: str, group: str, read: str | None) -> list[Axis]:
    """Return the axes of a convolution without bias and its batch norm."""
    axes = [Axis(f"{conv}.weight", 0, group)]
    if read is not None:
        axes.append(Axis(f"{conv}.weight", 1, read))
    return axes + [Axis(f"{norm}.{entry}", 0, group) for entry in NORM_ENTRIES]


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
    """Return a state whose channels are moved; the network that it describes stays the same.

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
