"""The inputs of distillation: pseudo images of the teachers, shifted, mirrored and mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from baselines.distillation._dead_leaves import normalised_leaves
from baselines.distillation._mixing import mix
from bench.contract import FitContext, FitLog, Teacher
from bench.inversion.augmentation import Augmentation
from bench.inversion.optimise import Inversion, Inversions, InversionSettings

CHUNK = 512
"""Views that are made at once."""


class PseudoImageSettings(InversionSettings):
    """How pseudo images are made."""

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


class ViewSettings(PseudoImageSettings):
    """How pseudo images are made and augmented."""

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


class TeacherInversions:
    """Makes each teacher's pseudo images, in batches; goes on from any step.

    Args:
        context: gives settings, device and log.
        teachers: the teachers.
        generator: CPU generator of the first pixels and the shifts.
    """

    def __init__(
        self,
        context: FitContext[PseudoImageSettings],
        teachers: Sequence[Teacher],
        generator: torch.Generator,
    ) -> None:
        self._context, self._teachers, self._generator = context, teachers, generator
        self._batches = [
            (number, batch)
            for number, teacher in enumerate(teachers)
            for batch in self._labels(teacher)
        ]
        self._inversions = Inversions(self._begin, len(self._batches), generator)
        self.state_dict = self._inversions.state_dict

    def run(self, note: Callable[[int], None], offer: Callable[[int], None]) -> list[Tensor]:
        """Return each teacher's pseudo images (n · M, 3, H, W), class by turns.

        Args:
            note: called after each step with the steps done, where a teacher has
                `inversion_steps`, however many batches it takes.
            offer: called likewise, where the fit may be saved.
        """
        steps, log = self._context.config.inversion_steps, self._context.log
        counts = [len(self._labels(teacher)) for teacher in self._teachers]
        for index, step, loss in self._inversions.steps():
            number, labels = self._batches[index]
            place = index - sum(counts[:number])
            log.count("pseudo_images", len(labels))
            log.count("teacher_forward_images", len(labels))
            if place == 0:
                log.scalars(number * steps + step, {"inversion": loss})
            done = number * steps + (place * steps + step) // counts[number]
            note(done)
            offer(done)
        found = iter(self._inversions.images)
        return [torch.cat([next(found) for _ in range(count)]) for count in counts]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._inversions.load_state_dict(state, self._context.device)

    def _labels(self, teacher: Teacher) -> tuple[Tensor, ...]:
        """Return the labels of a teacher's batches."""
        settings, size = self._context.config, self._context.net.image_size
        classes = torch.arange(len(teacher.class_ids), device=self._context.device)
        together = max(len(classes), settings.inversion_batch * 32**2 // size**2)
        return classes.repeat(settings.images_per_class).split(together)

    def _begin(self, index: int) -> Inversion:
        context, (number, labels) = self._context, self._batches[index]
        settings, size, teacher = context.config, context.net.image_size, self._teachers[number]
        start = None
        if settings.start == "leaves":
            start = normalised_leaves(len(labels), size, teacher.mean, teacher.std, self._generator)
        fused = context.device.type == "cpu"
        return Inversion(teacher.net, labels, size, settings, self._generator, start, fused)


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
        places = is_leaves.nonzero().flatten()
        if len(places):
            leaves = normalised_leaves(len(places), size, teacher.mean, teacher.std, generator)
            chosen[places.to(images.device)] = leaves.to(images.device)
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
