"""Which axes of a network's state belong to which channels, found by following one forward pass.

A hidden channel may be moved without changing the network, if every entry that writes or reads it
moves along: the rows of the convolution, its bias, the batch norm's scale, shift and statistics,
and the columns of each layer that reads it. Channels that are added to or multiplied with one
another (a residual stream, a gate) form one group and move together. A layer after flattening
reads a channel as a block of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.contract import Backbone, Skip
from bench.nets.precision import computing_in

KEEPING = frozenset(
    [
        *("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus"),
        *("sigmoid", "tanh", "hardtanh", "hardsigmoid", "hardswish", "clamp", "dropout"),
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
        *("interpolate", "pad", "contiguous", "clone", "detach", "to", "float"),
    ]
)
"""Operations after which each channel is where it was."""

JOINING = frozenset(
    ["add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "maximum", "minimum"]
)
"""Operations between two activations, which put their channels into one group."""

_WEIGHT, _NORM, _BIAS = range(3)


@dataclass(frozen=True)
class Axis:
    """One axis of one entry of a state: `block` consecutive positions for each channel of `group`.

    Along axis 0 the entry writes the channels, along axis 1 it reads them.
    """

    entry: str
    dim: int
    group: str
    block: int = 1


@dataclass(frozen=True)
class _Label:
    """The channels of an activation: dimension 1 holds blocks of `block` for each of a group.

    `layer` is the number of the layer that wrote them.
    """

    group: str
    block: int
    layer: int


@torch.no_grad()
def trace_channels(net: Backbone, image_size: int) -> tuple[Axis, ...]:
    """Return the channel axes of a network, groups in the order in which a pass meets them.

    It serves networks of convolutions (plain or depthwise), batch norm, linear layers,
    elementwise functions, poolings, sums and products, whose last linear layer is `head`.

    Args:
        net: a backbone in evaluation mode; not written to.
        image_size: side of the images that it takes, pixels.

    Raises:
        Skip: a channel goes through an operation that cannot be followed.
    """
    like = next(net.parameters())
    images = torch.zeros(2, 3, image_size, image_size, device=like.device, dtype=like.dtype)
    with computing_in("float32", like.device), _Trace(net) as trace:  # others cast the weights
        net(images)
    return trace.axes()


class _Trace(TorchFunctionMode):
    """Labels activations with their channels while a network computes."""

    def __init__(self, net: Backbone) -> None:
        super().__init__()
        self._network = type(getattr(net, "body", net)).__name__
        entries = [*net.named_parameters(), *net.named_buffers()]
        self._entries = {id(tensor): name for name, tensor in entries}
        self._head = id(net.head.weight)
        self._labels: dict[int, tuple[Tensor, _Label]] = {}
        self._joined: dict[str, str] = {}
        self._found: dict[tuple[str, int], tuple[int, int, str, int]] = {}
        self._layers = 0

    def axes(self) -> tuple[Axis, ...]:
        """Return what was found: layer by layer its weight, its norm, its bias."""
        ordered = sorted(self._found.items(), key=lambda item: item[1][:2])
        return tuple(
            Axis(entry, dim, self._group(group), block)
            for (entry, dim), (_, _, group, block) in ordered
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Compute, and label what comes out."""
        kwargs = kwargs or {}
        inputs = [one for one in _tensors([*args, *kwargs.values()]) if id(one) in self._labels]
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        follow: Callable[..., _Label | None] | None = _LAYERS.get(name)
        if follow is not None:
            label = follow(self, result, *args, **kwargs)
        elif inputs and isinstance(result, Tensor):
            label = self._after(name, result, inputs, _tensors([*args, *kwargs.values()]))
        else:
            label = None
        if label is not None:
            self._labels[id(result)] = result, label  # kept, so that no other takes its id
        return result

    def _after(
        self, name: str, result: Tensor, inputs: Sequence[Tensor], operands: Iterator[Tensor]
    ) -> _Label:
        """Return the label of the result of an operation without weights."""
        x = inputs[0]
        label = self._labels[id(x)][1]
        if name in JOINING:
            for other in operands:
                self._join(x, other)
            return label
        if name in KEEPING:
            return label
        if name == "mean" and x.ndim == 4 and result.shape[:2] == x.shape[:2]:
            return label
        flattens = result.ndim == 2 and len(result) == len(x) and result.numel() == x.numel()
        if name in ("flatten", "view", "reshape", "squeeze") and flattens:
            return _Label(label.group, label.block * x.shape[2:].numel(), label.layer)
        raise self._unknown(name)

    def _unknown(self, operation: str) -> Skip:
        return Skip(
            f"the channels of {self._network} cannot be followed through '{operation}'; methods "
            "that move channels serve networks of convolutions, batch norm, linear layers and sums"
        )

    def _join(self, x: Tensor, other: Tensor) -> None:
        """Put two operands' channels into one group; values shared by all channels have none."""
        known = self._labels.get(id(other))
        mine = self._labels[id(x)][1]
        if known is None:
            channels = other.shape[1 - x.ndim] if other.ndim >= x.ndim - 1 else 1
            if channels != 1:
                raise self._unknown("a sum or product with values that differ by channel")
        elif known[1].block != mine.block:
            raise self._unknown("a sum of flattened and other activations")
        else:
            first, second = self._group(mine.group), self._group(known[1].group)
            if first != second:
                first, second = sorted((first, second), key=list(self._joined).index)
                self._joined[second] = first

    def _group(self, name: str) -> str:
        """Return the first of the groups that a group was joined with."""
        while self._joined[name] != name:
            name = self._joined[name]
        return name

    def _note(self, tensor: Tensor | None, dim: int, rank: int, label: _Label) -> None:
        """Note an axis of a parameter or buffer; a layer met twice joins what it belongs to."""
        entry = self._entries.get(id(tensor))
        if tensor is None or tensor.ndim <= dim:
            return
        if entry is None:
            raise self._unknown("weights that are no entries of its state")
        if (entry, dim) in self._found:
            raise self._unknown(f"{entry}, which a pass uses twice")
        self._found[entry, dim] = label.layer, rank, label.group, label.block

    def conv(
        self,
        result: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: object = 1,
        padding: object = 0,
        dilation: object = 1,
        groups: int = 1,
    ) -> _Label:
        """Follow a convolution: each group of channels is read as a whole, or one by one."""
        read = self._labels.get(id(input))
        if groups == 1:
            return self._layer(weight, bias, read and read[1])
        if read is None or not groups == weight.shape[0] == input.shape[1]:
            raise self._unknown(f"a convolution of {groups} groups")
        self._layers += 1
        label = _Label(read[1].group, 1, self._layers)
        self._note(weight, 0, _WEIGHT, label)
        self._note(bias, 0, _BIAS, label)
        return label

    def linear(
        self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> _Label | None:
        """Follow a linear layer; what the head writes are classes, not channels."""
        read = self._labels.get(id(input))
        if input.ndim != 2:
            raise self._unknown("a linear layer on other than vectors")
        if id(weight) != self._head:
            return self._layer(weight, bias, read and read[1])
        if read is not None:
            self._layers += 1
            label = _Label(read[1].group, read[1].block, self._layers)
            self._note(weight, 1, _WEIGHT, label)
        return None

    def norm(
        self,
        result: Tensor,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *others: Any,
        **named: Any,
    ) -> _Label | None:
        """Follow batch norm, whose entries move with the channels that it normalises."""
        known = self._labels.get(id(input))
        if known is None:
            return None
        for entry in (weight, bias, running_mean, running_var):
            self._note(entry, 0, _NORM, known[1])
        return known[1]

    def prelu(self, result: Tensor, input: Tensor, weight: Tensor) -> _Label | None:
        """Follow a leaky ReLU with a slope of its own for all channels or for each."""
        known = self._labels.get(id(input))
        if known is not None and weight.numel() > 1:
            self._note(weight, 0, _NORM, known[1])
        return known and known[1]

    def _layer(self, weight: Tensor, bias: Tensor | None, read: _Label | None) -> _Label:
        """Note the axes of a layer that writes channels of its own; return their label."""
        entry = self._entries.get(id(weight), "")
        group = entry.rpartition(".")[0]
        self._joined.setdefault(group, group)
        self._layers += 1
        label = _Label(group, 1, self._layers)
        self._note(weight, 0, _WEIGHT, label)
        if read is not None:
            self._note(weight, 1, _WEIGHT, _Label(read.group, read.block, self._layers))
        self._note(bias, 0, _BIAS, label)
        return label


_LAYERS: dict[str, Callable[..., _Label | None]] = {
    "conv2d": _Trace.conv,
    "linear": _Trace.linear,
    "batch_norm": _Trace.norm,
    "prelu": _Trace.prelu,
}
"""Operations with weights, by name."""


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """Yield the tensors among some arguments, also of lists and tuples in them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
