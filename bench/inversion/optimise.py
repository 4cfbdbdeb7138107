"""Inversion of one network: pseudo images by Adam steps on their pixels.

What methods use that need inputs but no curriculum: statistics for merging, images to distil on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Backbone, Config
from bench.inversion.losses import InversionWeights, inversion_loss, roll
from bench.nets.fast.frozen_blocks import FoldedBlock, FrozenStatisticsNorm
from bench.nets.norm import RecordingNorm


class InversionSettings(Config):
    """How pseudo images are made; the weights are those of the pixel step of ECI."""

    images_per_class: int = Field(default=8, ge=1)
    """pseudo images of each class of each teacher. Ours."""
    inversion_steps: int = Field(default=100, ge=0)
    """Adam steps on the pixels; 0 leaves them noise. Ours."""
    pixel_lr: float = Field(default=0.1, gt=0)
    """Adam's rate on the pixels. Ours: 0.25 is released for a meta-iteration's single step, 0.1
    settles within a hundred. Unit: normalised pixels"""
    cross_entropy_weight: float = Field(default=1.0, ge=0)
    """factor of the teacher's cross-entropy. As in ECI."""
    bn_weight: float = Field(default=0.1, ge=0)
    """factor of the distance to the BN statistics. Ours: ten times that of ECI, whose images take
    thousands of steps."""
    tv_weight: float = Field(default=1e-4, ge=0)
    """factor of the total variation. As in ECI."""
    l2_weight: float = Field(default=1e-5, ge=0)
    """factor of the norm of the pixels. As in ECI."""
    jitter: int = Field(default=2, ge=0)
    """largest shift of the batch in a step, each way. As in ECI. Unit: px"""

    @property
    def inversion_weights(self) -> InversionWeights:
        """The factors of the inversion loss."""
        return InversionWeights(
            self.cross_entropy_weight, self.bn_weight, self.tv_weight, self.l2_weight
        )


def invert(
    net: Backbone,
    labels: Tensor,
    image_size: int,
    settings: InversionSettings,
    generator: torch.Generator,
    progress: Callable[[int, Tensor], None] = lambda step, loss: None,
    start: Tensor | None = None,
    fused: bool = False,
) -> Tensor:
    """Return pseudo images that a network assigns to its classes.

    Args:
        net: the network, with batch norm, frozen; nothing of it is written.
        labels: (B,) outputs of its head that the images shall show; says the device.
        image_size: side in pixels.
        settings: the constants.
        generator: CPU generator of the first pixels, N(0, 1), and of the shifts.
        progress: called with (steps done, the loss before the step, a 0-d tensor).
        start: the first pixels (B, 3, image_size, image_size), kept as they are, in place of noise.
        fused: differentiate by hand-written blocks (`bench.nets.fast`), in a third of the time
            on a CPU; the same but for rounding.

    Returns:
        Images (B, 3, image_size, image_size) in the network's normalised pixel space, detached.
    """
    inversion = Inversion(net, labels, image_size, settings, generator, start, fused)
    while not inversion.finished:
        loss = inversion.advance()
        progress(inversion.step, loss)
    return inversion.images


class Inversion:
    """An inversion under way: pixels, and the Adam state of their steps.

    The arguments are those of `invert`.
    """

    def __init__(
        self,
        net: Backbone,
        labels: Tensor,
        image_size: int,
        settings: InversionSettings,
        generator: torch.Generator,
        start: Tensor | None = None,
        fused: bool = False,
    ) -> None:
        if start is None:
            size = (len(labels), 3, image_size, image_size)
            start = torch.randn(size, generator=generator, dtype=torch.float32)
        self._net, self._labels, self._settings = net, labels, settings
        self._generator, self._fused = generator, fused
        self._pixels = start.to(labels.device, copy=True).requires_grad_()
        self._folded: dict[nn.BatchNorm2d, FoldedBlock] = {}
        self._optimiser = torch.optim.Adam([self._pixels], lr=settings.pixel_lr, fused=True)
        self.step = 0

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self._settings.inversion_steps

    @property
    def images(self) -> Tensor:
        """The images so far, detached."""
        return self._pixels.detach()

    def advance(self) -> Tensor:
        """Make one step on the pixels; return the loss before it, a 0-d tensor."""
        reach = self._settings.jitter
        dy, dx = torch.randint(-reach, reach + 1, (2,), generator=self._generator).tolist()
        rolled = roll(self._pixels, dy, dx).contiguous(memory_format=torch.channels_last)
        norm = FrozenStatisticsNorm(self._folded) if self._fused else RecordingNorm()
        weights = self._settings.inversion_weights
        loss = inversion_loss(self._net, rolled, self._labels, weights, norm).total
        (gradient,) = torch.autograd.grad(loss, self._pixels)
        # a fused Adam pairs pixel and gradient by place in memory, whatever their strides
        self._pixels.grad = gradient.contiguous()
        self._optimiser.step()
        self.step += 1
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that is needed to continue, but the generator's state."""
        state = {"pixels": self.images, "optimiser": self._optimiser.state_dict()}
        return deepcopy({"step": self.step, **state})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step = state["step"]
        with torch.no_grad():
            self._pixels.copy_(state["pixels"])
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))


class Inversions:
    """Inversions one after the other on one random stream, which go on from any step.

    Args:
        begin: a number, from 0, → the inversion of that number at its start; it may draw from the
            generator.
        count: how many there are.
        generator: CPU generator that they share.

    Attributes:
        images: the images of those that are finished.
    """

    def __init__(
        self, begin: Callable[[int], Inversion], count: int, generator: torch.Generator
    ) -> None:
        self._begin, self._count, self._generator = begin, count, generator
        self._current: Inversion | None = None
        self.images: list[Tensor] = []

    def steps(self) -> Iterator[tuple[int, int, Tensor]]:
        """Run what is left, step by step.

        Yields:
            After each step the number of its inversion, the steps of that one that are done, and
            the loss before the step.
        """
        while (number := len(self.images)) < self._count:
            self._current = self._current or self._begin(number)
            if self._current.finished:
                self.images.append(self._current.images)
                self._current = None
            else:
                loss = self._current.advance()
                yield number, self._current.step, loss

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue bit by bit; images are not copied."""
        return {
            "images": list(self.images),
            "current": self._current and self._current.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from what `state_dict` returned, with images on a device."""
        self.images = [images.to(device) for images in state["images"]]
        if state["current"] is not None:
            self._current = self._begin(len(self.images))
            self._current.load_state_dict(state["current"])
        self._generator.set_state(state["generator"].cpu())
