"""The inputs of distillation: pseudo images of the teachers, shifted, mirrored and mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baselines.distillation._dead_leaves import normalised_leaves
from baselines.distillation._mixing import mix
from bench.contract import FitContext, FitLog, Teacher
from bench.inversion.augmentation import Augmentation
from bench.inversion.optimise import InversionSettings, invert

CHUNK = 512
"""Views that are made at once."""


class ViewSettings(InversionSettings):
    """How pseudo images are made and augmented."""

    images_per_class: int = Field(64, ge=1)
    """pseudo images of each class of each teacher. Ours."""
    inversion_steps: int = Field(60, ge=0)
    """Adam steps on the pixels. Ours: from dead leaves, 60 do as well as 150 from noise."""
    start: Literal["noise", "leaves"] = "leaves"
    """what inversion starts from: white noise, or dead leaves (`_dead_leaves.py`), which
    leave their edges and textures in the pseudo images. Ours."""
    inversion_batch: int = Field(160, ge=1)
    """pseudo images inverted together, at 32 px; at other sizes as many as have the same number of
    pixels, but one of each class at least. Ours."""
    leaves_share: float = Field(0.3, ge=0, le=1)
    """share of views of fresh dead leaves that no teacher has changed. Ours."""
    shift: int = Field(4, ge=0)
    """largest shift of a view, each way, edges mirrored. Ours. Unit: px"""
    flip: bool = True
    """whether views are mirrored left and right at random; wrong for letters. Ours."""
    blend_share: float = Field(0.15, ge=0, le=1)
    """share of views blended with another (mixup). Ours."""
    cut_share: float = Field(0.25, ge=0, le=1)
    """share of views with a square of another (CutMix). Ours."""

    @model_validator(mode="after")
    def _share(self) -> ViewSettings:
        if self.blend_share + self.cut_share > 1:
            raise ValueError(
                f"blend_share {self.blend_share} and cut_share {self.cut_share} exceed 1 together"
            )
        return self


def invert_teacher(
    context: FitContext[ViewSettings],
    teacher: Teacher,
    generator: torch.Generator,
    first_step: int,
    note: Callable[[int], None],
) -> Tensor:
    """Return a teacher's pseudo images (n · M, 3, H, W) at the meta-model's size, class by turns.

    Args:
        context: gives settings, device and log.
        teacher: the teacher.
        generator: CPU generator of the first pixels and the shifts.
        first_step: where the log's step numbers start.
        note: called with the share of the inversion steps that is done.
    """
    settings, size = context.config, context.net.image_size
    classes = torch.arange(len(teacher.class_ids), device=context.device)
    labels = classes.repeat(settings.images_per_class)
    batches = labels.split(max(len(classes), settings.inversion_batch * 32**2 // size**2))
    found = []
    for index, batch in enumerate(batches):

        def progress(step: int, loss: Tensor, index: int = index, n: int = len(batch)) -> None:
            context.log.count("pseudo_images", n)
            context.log.count("teacher_forward_images", n)
            if index == 0:
                context.log.scalars(first_step + step, {"inversion": loss})
            note((index * settings.inversion_steps + step) // len(batches))

        start = None
        if settings.start == "leaves":
            start = normalised_leaves(len(batch), size, teacher.mean, teacher.std, generator)
        fused = context.device.type == "cpu"
        found.append(invert(teacher.net, batch, size, settings, generator, progress, start, fused))
    return torch.cat(found)


def draw_views(
    images: Tensor, n: int, teacher: Teacher, settings: ViewSettings, generator: torch.Generator
) -> Tensor:
    """Return views (n, 3, H, W) of pseudo images and of newly drawn dead leaves.

    Args:
        images: pseudo images (M, 3, H, W).
        n: how many views.
        teacher: any teacher, for the normalisation that all share.
        settings: what happens to an image.
        generator: CPU generator.
    """
    change = Augmentation(settings.flip, settings.shift)
    size = images.shape[-1]

    def pick(n: int) -> Tensor:
        chosen = images[torch.randint(len(images), (n,), generator=generator).to(images.device)]
        is_leaves = torch.rand(n, generator=generator) < settings.leaves_share
        if is_leaves.any():
            n_leaves = int(is_leaves.sum())
            leaves = normalised_leaves(n_leaves, size, teacher.mean, teacher.std, generator)
            chosen[is_leaves.to(images.device)] = leaves.to(images.device)
        return change(chosen, generator)

    views = []
    for start in range(0, n, CHUNK):
        m = min(CHUNK, n - start)
        views.append(mix(pick(m), pick(m), settings.blend_share, settings.cut_share, generator))
    return torch.cat(views)


def show(log: FitLog, teacher: Teacher, images: Tensor, per_class: int = 4) -> None:
    """Log a few of a teacher's pseudo images of each class, as `invert_teacher` returns them."""
    n_classes = len(teacher.class_ids)
    shown = images[: n_classes * per_class].unflatten(0, (-1, n_classes))
    scale, shift = (images.new_tensor(x)[:, None, None] for x in (teacher.std, teacher.mean))
    pictures = (shown.transpose(0, 1).flatten(0, 1) * scale + shift).clamp(0, 1)
    log.images(f"pseudo images of {teacher.name}", pictures, teacher.class_names)
