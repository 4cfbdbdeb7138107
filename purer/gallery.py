"""Galleries of pseudo images: a few per class, converted back to pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import FitLog, Pool
from purer.dynamic_dataset import DynamicDataset


def denormalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images (…, 3, H, W) in [0, 1], clamped, from normalised ones.

    Args:
        images: images in normalised units.
        mean: 3 numbers, for pixels in [0, 1].
        std: 3 numbers, likewise.
    """
    scale = images.new_tensor(std)[:, None, None]
    shift = images.new_tensor(mean)[:, None, None]
    return (images.detach() * scale + shift).clamp(0, 1)


def show_gallery(
    log: FitLog, name: str, dataset: DynamicDataset, pool: Pool, per_class: int
) -> None:
    """Log a grid with one row per teacher: the first `per_class` images of each of its classes.

    A caption is the teacher's number and the class's name; short rows end in blank tiles.

    Args:
        log: where the grid goes.
        name: what the grid is called.
        dataset: the pseudo images.
        pool: the teachers, each of whose own mean and std undo the normalisation of its row.
        per_class: images of each class, at most M; 0 logs nothing.
    """
    if per_class == 0:
        return
    columns = max(len(rows) for rows in dataset.rows)
    tiles: list[Tensor] = []
    captions: list[str] = []
    for number, (teacher, rows) in enumerate(zip(pool, dataset.rows, strict=True)):
        shown = denormalised(dataset.images[rows, :per_class], teacher.mean, teacher.std)
        n_blank = columns - len(rows)
        blank = shown.new_ones(n_blank, *shown.shape[1:])
        tiles.append(torch.cat([shown, blank]).flatten(0, 1))
        captions += [f"{number} {name}" for name in dataset.names_of(number)]
        captions += [""] * n_blank
    log.images(name, torch.cat(tiles), captions, columns)
