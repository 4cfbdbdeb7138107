"""Batch normalisation whose statistics are chosen by the caller, explicitly and without hooks.

A network's forward pass takes a `Norm`: a function (layer, x) → normalised x. Nothing is stored
on the layers, so the same network serves many threads, tasks and function transforms at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError

Norm = Callable[[nn.BatchNorm2d, Tensor], Tensor]

LayerStatistics = tuple[nn.BatchNorm2d, Tensor, Tensor]
"""(layer, batch mean (C,), biased batch variance (C,)) of a layer's input."""


class StatisticsNorm(Protocol):
    """A norm that lists the statistics of each layer's input, in the order of the pass."""

    layers: list[LayerStatistics]

    @abstractmethod
    def __call__(self, layer: nn.BatchNorm2d, x: Tensor, /) -> Tensor:
        """Normalise (B, C, H, W)."""


class BlockNorm(ABC):
    """A norm that also computes a whole block of Conv4; see `bench/nets/fast`."""

    @abstractmethod
    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""

    @abstractmethod
    def conv_block(self, conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H // 2, W // 2): convolution, BN, ReLU, pooling."""


def running_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise with the stored running statistics (BN mode `running`; evaluation)."""
    return F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps
    )


def batch_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise with the batch's own statistics, storing none (BN mode `transductive`)."""
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def training_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise with the batch's statistics and update the running ones (supervised training)."""
    rate = 0.1 if layer.momentum is None else layer.momentum  # torch's own
    return F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, True, rate, layer.eps
    )


def running_statistics(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the stored mean and variance (C,), (C,) of a layer's input.

    Raises:
        BenchError: the layer stores none.
    """
    if layer.running_mean is None or layer.running_var is None:
        raise BenchError(f"{layer} stores no running statistics; build it with them")
    return layer.running_mean, layer.running_var


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance (C,), (C,) of activations (B, C, H, W).

    Those of bfloat16 activations are float32.
    """
    variance, mean = torch.var_mean(at_least_float32(x), dim=(0, 2, 3), correction=0)
    return mean, variance


def at_least_float32(x: Tensor) -> Tensor:
    """Return bfloat16 values as float32, and others as they are."""
    return x.float() if x.dtype == torch.bfloat16 else x


def holds_statistics(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict holds running statistics that were updated at least once.

    Fresh layers, before any pass in training mode, have means of 0 and variances of 1.
    """
    fresh = {"running_mean": 0, "running_var": 1}
    return any(
        bool((value != fresh[name.rpartition(".")[2]]).any())
        for name, value in state.items()
        if name.rpartition(".")[2] in fresh
    )


def norm_parameters(net: nn.Module) -> list[str]:
    """Return the names of the scales and shifts of a network's batch norm layers."""
    return [
        f"{layer}.{name}"
        for layer, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    ]


class RecordingNorm:
    """`running_norm` that keeps each layer's input statistics: one pass per layer, no hooks.

    A `StatisticsNorm`. Use a fresh instance for each pass.
    """

    def __init__(self) -> None:
        self.layers: list[LayerStatistics] = []

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        self.layers.append((layer, *batch_statistics(x)))
        return running_norm(layer, x)
