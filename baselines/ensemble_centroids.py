"""The features of all teachers, side by side, and the nearest class centroid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Config, FitContext, Learner, Method, Teacher
from bench.learners.centroids import centroid_learner, unit
from bench.nets.norm import Norm

Parts = Literal["features", "logits", "soft_labels", "features+logits"]
BN_MODES = {"running": "running", "batch": "transductive"}


class EnsembleConfig(Config):
    """What of each teacher is used."""

    bn: Literal["running", "batch"] = "running"
    """`running`: stored statistics, the same embedding in every task; `batch`: support and queries
    each normalised by their own batch"""
    parts: Parts = "features"
    """what each teacher contributes; every part has length 1"""
    root: bool = False
    """take the square root of the magnitude of each feature first, keeping its sign"""
    temperature: float = Field(2.0, gt=0)
    """divisor of the logits under `soft_labels`"""


class EnsembleCentroids(Method):
    """Concatenated L2-normalised features of all teachers, nearest class centroid; no training.

    Each teacher's part is scaled to length 1 before concatenation, so that no teacher outweighs
    another; the overall scale plays no part in the nearest centroid. Classifier: SimpleShot
    (Wang et al., arXiv 1911.04623), "L2N". The use of a pool of teachers is ours.
    """

    name = "ensemble_centroids"
    knowledge = "features"
    learners = ("centroids",)
    Config = EnsembleConfig

    def skip(self, context: FitContext) -> str | None:
        """All teachers read the same pixels, so these must be normalised alike."""
        return differing_normalisation(context.pool) or lacking_batch_norm(
            context.pool, context.config.bn
        )

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Learn nothing: the pool is all the knowledge."""
        return {}

    def learner(self, context: FitContext, fitted: Mapping[str, Tensor]) -> Learner:
        """Return the nearest-centroid learner of all teachers."""
        return teachers_learner(tuple(context.pool), context.config)


def differing_normalisation(teachers: Sequence[Teacher]) -> str | None:
    """Return why teachers cannot share their input pixels, or None."""
    kinds = {(teacher.mean, teacher.std) for teacher in teachers}
    if len(kinds) > 1:
        return f"the teachers' images are normalised in {len(kinds)} different ways"
    return None


def lacking_batch_norm(teachers: Sequence[Teacher], bn: str) -> str | None:
    """Return why teachers cannot normalise by the batch, or None."""
    for teacher in teachers:
        layers = [part for part in teacher.net.modules() if isinstance(part, nn.BatchNorm2d)]
        if bn == "batch" and not layers:
            name = f"{teacher.name} ({teacher.spec.architecture})"
            return f"bn = batch normalises by the batch; teacher {name} has no batch norm"
    return None


def teachers_learner(teachers: Sequence[Teacher], config: EnsembleConfig) -> Learner:
    """Return the nearest-centroid learner of some teachers' concatenated parts."""
    part = _part(config)

    def embedding(images: Tensor, norm: Norm) -> Tensor:
        return torch.cat([part(teacher, images, norm) for teacher in teachers], dim=1)

    uses_heads = config.parts != "features"
    n_parameters = sum(
        parameter.numel()
        for teacher in teachers
        for name, parameter in teacher.net.named_parameters()
        if uses_heads or not name.startswith("head.")
    )
    return centroid_learner(embedding, n_parameters, BN_MODES[config.bn])


def _part(config: EnsembleConfig) -> Callable[[Teacher, Tensor, Norm], Tensor]:
    """Return (teacher, images, norm) → what the teacher contributes (B, D)."""

    def part(teacher: Teacher, images: Tensor, norm: Norm) -> Tensor:
        features = teacher.net.features(resize(images, teacher.spec.image_size), norm)
        parts = []
        if config.parts in ("features", "features+logits"):
            parts.append(unit(_signed_root(features) if config.root else features))
        if config.parts in ("logits", "features+logits"):
            parts.append(unit(teacher.net.head(features)))
        if config.parts == "soft_labels":
            parts.append(unit(F.softmax(teacher.net.head(features) / config.temperature, dim=1)))
        return torch.cat(parts, dim=1)

    return part


def _signed_root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def resize(images: Tensor, size: int) -> Tensor:
    """Return square images (B, C, H, H) at another side length, bilinear and anti-aliased."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
