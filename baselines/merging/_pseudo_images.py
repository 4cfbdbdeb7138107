"""Pseudo images of every teacher, for merges whose statistics need inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import FitContext, Teacher
from bench.inversion.optimise import InversionSettings, invert

__all__ = ["InversionSettings", "invert_teachers"]


def invert_teachers(
    context: FitContext, teachers: Sequence[Teacher], settings: InversionSettings
) -> list[tuple[Tensor, Tensor]]:
    """Invert each teacher for all of its classes; the log counts images and teacher passes.

    Args:
        context: gives the device and the random stream `pseudo images`.
        teachers: the teachers.
        settings: of the inversion.

    Returns:
        For each teacher pseudo images (n · M, 3, H, W), class after class, and labels (n · M,).
    """
    generator = context.generator("pseudo images")
    total, found = len(teachers) * settings.inversion_steps, []
    for index, teacher in enumerate(teachers):
        classes = torch.arange(len(teacher.class_ids), device=context.device)
        labels = classes.repeat_interleave(settings.images_per_class)
        before = index * settings.inversion_steps

        def note(step: int, loss: Tensor, before: int = before, n: int = len(labels)) -> None:
            context.log.count("pseudo_images", n)
            context.log.count("teacher_forward_images", n)
            context.log.scalars(before + step, {"inversion": loss})
            context.log.progress(before + step, total)

        size = teacher.spec.image_size
        images = invert(teacher.net, labels, size, settings, generator, note)
        found.append((images, labels))
        if index == 0:
            _show(context, teacher, images)
    return found


def _show(context: FitContext, teacher: Teacher, images: Tensor) -> None:
    scale = images.new_tensor(teacher.std)[:, None, None]
    shift = images.new_tensor(teacher.mean)[:, None, None]
    pictures = (images * scale + shift).clamp(0, 1)
    context.log.images(f"pseudo images of {teacher.name}", pictures, teacher.class_names)
