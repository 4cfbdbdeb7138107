"""Random flips, shifts and colour changes of the pseudo images of a task. Ours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """The random changes of each image of a pseudo task, independent between images.

    `flip` mirrors left and right with probability 1/2; `shift` moves by up to so many pixels each
    way, with mirrored edges; `colour` scales all of an image's values by 1 ± colour and adds up to
    ± colour to each channel, in normalised units. Nothing happens where all are off.
    """

    flip: bool = False
    shift: int = 0
    colour: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of images (…, 3, H, W), or the images if every change is off.

        Args:
            images: normalised images; `shift` must be smaller than their side.
            generator: CPU generator; the draws do not depend on the device.
        """
        flat = images.reshape(-1, *images.shape[-3:])
        if self.flip:
            flat = _flipped(flat, generator)
        if self.shift:
            flat = _shifted(flat, self.shift, generator)
        if self.colour:
            flat = _coloured(flat, self.colour, generator)
        return flat.reshape(images.shape)


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    offsets = torch.randint(0, 2 * most + 1, (2, n, 1), generator=generator).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (n, H)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (n, W)
    padded = F.pad(images, (most,) * 4, mode="reflect")
    padded = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    return padded.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _coloured(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    def draw(channels: int) -> Tensor:
        uniform = torch.rand((len(images), channels, 1, 1), generator=generator)
        return most * (2 * uniform - 1).to(images.device, images.dtype)

    return images * (1 + draw(1)) + draw(images.shape[1])
