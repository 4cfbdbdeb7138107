"""Pseudo images of every teacher, for merges whose statistics need inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import FitContext, Teacher
from bench.inversion.optimise import Inversion, Inversions, InversionSettings

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
    labels = [_labels(teacher, settings, context.device) for teacher in teachers]

    def begin(number: int) -> Inversion:
        teacher = teachers[number]
        return Inversion(teacher.net, labels[number], teacher.spec.image_size, settings, generator)

    inversions = Inversions(begin, len(teachers), generator)
    if context.resume is not None:
        inversions.load_state_dict(context.resume, context.device)
    total = len(teachers) * settings.inversion_steps
    for number, step, loss in inversions.steps():
        context.log.count("pseudo_images", len(labels[number]))
        context.log.count("teacher_forward_images", len(labels[number]))
        done = number * settings.inversion_steps + step
        context.log.scalars(done, {"inversion": loss})
        context.log.progress(done, total)
        context.checkpoint(done, inversions.state_dict)
    _show(context, teachers[0], inversions.images[0])
    return list(zip(inversions.images, labels, strict=True))


def _labels(teacher: Teacher, settings: InversionSettings, device: torch.device) -> Tensor:
    classes = torch.arange(len(teacher.class_ids), device=device)
    return classes.repeat_interleave(settings.images_per_class)


def _show(context: FitContext, teacher: Teacher, images: Tensor) -> None:
    scale = images.new_tensor(teacher.std)[:, None, None]
    shift = images.new_tensor(teacher.mean)[:, None, None]
    pictures = (images * scale + shift).clamp(0, 1)
    context.log.images(f"pseudo images of {teacher.name}", pictures, teacher.class_names)
