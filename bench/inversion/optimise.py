"""Inversion of one network: pseudo images by Adam steps on their pixels.

What methods use that need inputs but no curriculum: statistics for merging, images to distil on.
"""

from __future__ import annotations

from collections.abc import Callable

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
    if start is None:
        size = (len(labels), 3, image_size, image_size)
        start = torch.randn(size, generator=generator, dtype=torch.float32)
    pixels = start.to(labels.device, copy=True).requires_grad_()
    folded: dict[nn.BatchNorm2d, FoldedBlock] = {}
    optimiser = torch.optim.Adam([pixels], lr=settings.pixel_lr, fused=True)
    reach = settings.jitter
    for step in range(1, settings.inversion_steps + 1):
        dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        rolled = roll(pixels, dy, dx).contiguous(memory_format=torch.channels_last)
        norm = FrozenStatisticsNorm(folded) if fused else RecordingNorm()
        loss = inversion_loss(net, rolled, labels, settings.inversion_weights, norm).total
        (gradient,) = torch.autograd.grad(loss, pixels)
        # a fused Adam pairs pixel and gradient by place in memory, whatever their strides
        pixels.grad = gradient.contiguous()
        optimiser.step()
        progress(step, loss.detach())
    return pixels.detach()
