"""Stored pixels to network input and back; works where the tensor is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator

from bench.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor


def _check_mean(value: tuple[float, ...]) -> tuple[float, ...]:
    for one in value:
        if not 0 <= one <= 1:
            raise ValueError(f"{one:g} is no mean of pixels in 0 to 1{_scaled(value)}")
    return value


def _check_std(value: tuple[float, ...]) -> tuple[float, ...]:
    for one in value:
        if not 0 < one <= 1:
            raise ValueError(f"{one:g} is no deviation of pixels in 0 to 1{_scaled(value)}")
    return value


def check_normalisation(name: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a mean or deviation of a data set that cannot be of pixels in 0 to 1.

    Raises:
        BenchError: one number cannot.
    """
    try:
        _check_mean(tuple(mean))
        _check_std(tuple(std))
    except ValueError as error:
        raise BenchError(
            f"data set '{name}': {error}; correct the plug-in that offers it"
        ) from None


def _scaled(value: tuple[float, ...]) -> str:
    """Name the numbers that are meant where these are for pixels in 0 to 255."""
    if not (max(value) > 1 and all(0 < one <= 255 for one in value)):
        return ""
    return f"; for pixels in 0 to 255, divide by 255: {', '.join(f'{x / 255:.4g}' for x in value)}"


Mean = Annotated[tuple[float, float, float], AfterValidator(_check_mean)]
"""Of the channels, for pixels in 0 to 1: each number in [0, 1]."""
Std = Annotated[tuple[float, float, float], AfterValidator(_check_std)]
"""Likewise the standard deviation: each number in (0, 1]."""


def normalise(images: Tensor | np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images as a network takes them: pixels scaled to [0, 1], minus mean, over std.

    Args:
        images: uint8 (..., H, W, 3).
        mean: (3,) of the data set, for pixels in [0, 1].
        std: (3,) likewise.

    Returns:
        Contiguous float32 (..., 3, H, W), on the device of `images`.

    Raises:
        BenchError: the images are not uint8 with three channels last.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images if images.flags.writeable else images.copy())
    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise BenchError(
            f"images of {images.dtype} {tuple(images.shape)}; stored images are uint8 "
            "(..., H, W, 3): normalise each image once"
        )
    *lead, height, width, channels = images.shape
    x = torch.empty((*lead, channels, height, width), dtype=torch.float32, device=images.device)
    x.copy_(images.movedim(-1, -3))
    scale = _per_channel(std, x)
    return x.mul_(1 / (255 * scale)).sub_(_per_channel(mean, x) / scale)


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(tuple(values)).view(-1, 1, 1)
