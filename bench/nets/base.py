"""The base class of networks: `features`, `head`, and a forward pass through both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map_only

from bench import contract
from bench.contract import OptimiserRecipe
from bench.nets.norm import Norm, running_norm
from bench.nets.precision import in_current_precision

if TYPE_CHECKING:
    from bench.nets.channels import Axis

_WITH_DEFAULTS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
"""Layers whose parameters start at fixed values, which `reset_parameters` sets."""


class Backbone(contract.Backbone, nn.Module, ABC):
    """A feature extractor and a linear head.

    Args of the constructor: n_classes, outputs of the head; image_size, side of the square
    images in pixels.
    """

    version: ClassVar[int] = 1
    """raised when a change of the code changes what it computes; see `Method.version`"""
    recipe: ClassVar[OptimiserRecipe] = OptimiserRecipe(
        optimiser="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4
    )
    """how teachers of the architecture are trained. Source: the paper's pre-training script"""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap `features` so that it computes in the precision that the harness sets."""
        super().__init_subclass__(**kwargs)
        if "features" in cls.__dict__:
            cls.features = in_current_precision(cls.features)  # type: ignore[method-assign]  # meant

    @abstractmethod
    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the features (B, n_features) of images (B, 3, H, W)."""

    def forward(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the logits (B, n_classes) of images (B, 3, H, W)."""
        return self.head(self.features(x, norm))

    def channel_axes(self, image_size: int) -> tuple[Axis, ...]:
        """Return which axes of the state dict belong to which channels; found by a pass.

        A network that a pass cannot be followed through may declare them instead.

        Args:
            image_size: side of the images that it takes, pixels.

        Raises:
            Skip: the channels cannot be followed.
        """
        from bench.nets.channels import trace_channels

        return trace_channels(self, image_size)


NetT = TypeVar("NetT", bound=nn.Module)


def placed(net: NetT, device: torch.device | str) -> NetT:
    """Move a network to a device, with channels last in memory, and return it."""
    return net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented


StateT = TypeVar("StateT")


def on_cpu(state: StateT) -> StateT:
    """Return a copy of a nested state (dicts, lists, tuples) whose tensors are on the CPU."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)


@torch.no_grad()
def scale_norm(layer: nn.BatchNorm2d, factor: float) -> None:
    """Multiply the output of a norm layer by a factor, in place."""
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw new weights in place from a CPU generator, with torch's default distributions.

    Convolutions and linear layers: weights and biases uniform in ±1/√fan_in, which is what Kaiming-
    uniform with a = √5 amounts to. Norms: scale 1, shift 0, statistics reset. PReLU: the slope that
    it was made with. What other modules hold (attention, class tokens, positions): normal, σ =
    0.02, as vision transformers do.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
                    with torch.no_grad():
                        parameter.copy_((2 * draw - 1) * bound)
        elif isinstance(module, _WITH_DEFAULTS):
            module.reset_parameters()
        else:
            for parameter in module.parameters(recurse=False):
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                with torch.no_grad():
                    parameter.copy_(0.02 * draw)


def resize(images: Tensor, size: int) -> Tensor:
    """Return square images (…, C, H, H) at another side length, bilinear and anti-aliased."""
    if images.shape[-1] == size:
        return images
    flat = images.flatten(0, -4)
    flat = F.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return flat.view(*images.shape[:-2], size, size)
