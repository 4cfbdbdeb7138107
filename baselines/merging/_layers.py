"""Record the inputs and outputs of each layer; treat convolutions as linear layers on patches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import Backbone, Skip
from bench.nets.norm import running_norm, running_statistics

Layer = nn.BatchNorm2d | nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Watched:
    """Input and output of a layer in one forward pass."""

    layer: Layer
    input: Tensor
    output: Tensor


def watched_pass(net: Backbone, images: Tensor) -> tuple[Tensor, dict[str, Watched]]:
    """Return the logits (B, n_classes) and each layer's input and output, by name.

    Args:
        net: a network of convolutions, linear layers and batch norm, each met once in a pass; not
            written to.
        images: (B, 3, H, W), normalised by stored statistics.
    """
    names = {module: name for name, module in net.named_modules()}
    seen: dict[str, Watched] = {}

    def see(layer: Layer, x: Tensor, y: Tensor) -> None:
        seen[names[layer]] = Watched(layer, x, y)

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        y = running_norm(layer, x)
        see(layer, x, y)
        return y

    with _hooked(net, see):
        return net(images, norm), seen


def layer_of(net: Backbone, name: str) -> Layer:
    """Return a layer by a name of `watched_pass`."""
    layer = net.get_submodule(name)
    assert isinstance(layer, Layer), name
    return layer


def normalised(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return the input of batch norm normalised by stored statistics, (B, C, L)."""
    mean, variance = running_statistics(layer)
    return (x.flatten(2) - mean[:, None]) * torch.rsqrt(variance + layer.eps)[:, None]


def input_rows(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return a layer's inputs as rows (B, L, d): patches, and last a 1 where it has a bias.

    Raises:
        Skip: the layer does not read all channels, or other than images and vectors.
    """
    if isinstance(layer, nn.Conv2d):
        if layer.groups > 1 or isinstance(layer.padding, str):
            raise Skip(f"a convolution of {layer.groups} groups is no linear layer on patches")
        x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
    elif x.ndim > 2:
        raise Skip(f"a linear layer reads a tensor of {x.ndim} dimensions, not a vector per image")
    else:
        x = x.unsqueeze(1)
    return x if layer.bias is None else torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


def sample_rows(seen: Watched) -> Tensor:
    """Return a layer's inputs, one row per sample, in the order of `layer_weight`.

    Convolutions and linear layers: (samples, d); batch norm, channel by channel: (C, samples, 2).
    """
    if not isinstance(seen.layer, nn.BatchNorm2d):
        return input_rows(seen.layer, seen.input).flatten(0, 1)
    values = normalised(seen.layer, seen.input).movedim(1, 0).flatten(1)
    return torch.stack([values, torch.ones_like(values)], dim=-1)


def output_rows(seen: Watched) -> Tensor:
    """Return a layer's outputs, one row per sample of `sample_rows`.

    Convolutions and linear layers: (samples, outputs); batch norm: (C, samples, 1).
    """
    if isinstance(seen.layer, nn.BatchNorm2d):
        return seen.output.movedim(1, 0).flatten(1)[..., None]
    return seen.output.movedim(1, -1).flatten(0, -2)


def layer_weight(layer: Layer) -> Tensor:
    """Return a layer's weight as (…, d, outputs), float64, inputs in the order of `input_rows`.

    Batch norm is C layers of two inputs, the normalised value and 1: (C, 2, 1).
    """
    if isinstance(layer, nn.BatchNorm2d):
        return torch.stack([layer.weight, layer.bias], dim=1)[..., None].double()
    columns = [layer.weight.flatten(1)]
    if layer.bias is not None:
        columns.append(layer.bias[:, None])
    return torch.cat(columns, dim=1).T.double()


def layer_entries(name: str, layer: Layer, weight: Tensor) -> dict[str, Tensor]:
    """Return a layer's entries of a state from (…, d, outputs); undoes `layer_weight`."""
    if isinstance(layer, nn.BatchNorm2d):
        return {f"{name}.weight": weight[:, 0, 0], f"{name}.bias": weight[:, 1, 0]}
    if layer.bias is None:
        return {f"{name}.weight": weight.T.reshape(layer.weight.shape)}
    return {
        f"{name}.weight": weight[:-1].T.reshape(layer.weight.shape),
        f"{name}.bias": weight[-1],
    }


@contextlib.contextmanager
def _hooked(net: nn.Module, see: Callable[[Layer, Tensor, Tensor], None]) -> Iterator[None]:
    """Call see(layer, input, output) after each convolution and linear layer, inside the block."""

    def after(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        see(layer, inputs[0], output)

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
