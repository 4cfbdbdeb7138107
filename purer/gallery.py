"""Pseudo images for the eye: a few of each class, back in the range of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bench.contract import FitLog, Teacher
from purer.dynamic_dataset import DynamicDataset


def denormalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images (…, 3, H, W) in [0, 1], clamped, from normalised ones.

    Args:
        images: images in normalised units.
        mean, std: 3 numbers each, for pixels in [0, 1].
    """
    scale = images.new_tensor(std)[:, None, None]
    shift = images.new_tensor(mean)[:, None, None]
    return (images.detach() * scale + shift).clamp(0, 1)


def show_gallery(
    log: FitLog, name: str, dataset: DynamicDataset, teacher: Teacher, per_class: int
) -> None:
    """Log the first `per_class` pseudo images of each class, captioned with its name.

    Args:
        log: where the grid goes.
        name: what the grid is called.
        dataset: the pseudo images.
        teacher: whose mean and std undo the normalisation.
        per_class: images of each class, at most M; 0 logs nothing.
    """
    if per_class == 0:
        return
    shown = dataset.images[:, :per_class]
    images = denormalised(shown.flatten(0, 1), teacher.mean, teacher.std)
    log.images(name, images, dataset.class_names)
