"""The features of all teachers, side by side, and the nearest class centroid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Config, FitContext, Learner, Method, Teacher, added
from bench.learners.centroids import centroid_learner, centroid_logits, ridge_logits, unit
from bench.nets.norm import Norm

Parts = Literal[
    "features", "logits", "soft_labels", "features+logits", "features+logits+soft_labels"
]
BN_MODES = {"running": "running", "batch": "transductive"}


class EnsembleConfig(Config):
    """What of each teacher is used, how it is weighed, and the classifier on top."""

    bn: Literal["running", "batch"] = "running"
    """`running`: stored statistics, the same embedding in every task; `batch`: support and queries
    each normalised by their own batch"""
    parts: Parts = "features"
    """what each teacher contributes; every part has length 1"""
    root: bool = False
    """take the square root of the magnitude of each feature and soft label first, keeping its
    sign"""
    temperature: float = Field(2.0, gt=0)
    """divisor of the logits before soft labels. Ours."""
    views: Literal["one", "mirrored"] = added("one")
    """`mirrored`: the mean of each part over an image and its mirror image, at twice the cost"""
    accuracy_power: float = added(0.0, ge=0)
    """a teacher's part is multiplied by its held-out accuracy to this power; 0 weighs all alike"""
    classifier: Literal["centroids", "ridge"] = added("centroids")
    """`ridge`: regression on the support set's labels in place of the nearest centroid"""
    ridge: float = added(1.5, gt=0)
    """penalty of the ridge, relative to the mean square of the centred support. Ours."""


class EnsembleCentroids(Method):
    """Concatenated L2-normalised features of all teachers, nearest class centroid; no training.

    Each teacher's part is scaled to length 1 before concatenation, so that no teacher outweighs
    another; the overall scale plays no part in the nearest centroid. Classifier: SimpleShot
    (Wang et al., arXiv 1911.04623), "L2N". The use of a pool of teachers is ours, and so is the
    preset `tuned`, whose settings were chosen on validation tasks of CIFAR-FS: root features,
    logits and root soft labels, each averaged over the image and its mirror image, teachers
    weighed by their squared held-out accuracy.
    """

    name = "ensemble_centroids"
    knowledge = "features"
    learners = ("centroids",)
    Config = EnsembleConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {},
        "tuned": {
            "parts": "features+logits+soft_labels",
            "root": True,
            "views": "mirrored",
            "accuracy_power": 2.0,
        },
    }

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
    """Return the learner on some teachers' concatenated parts."""
    part = _part(config)
    classify = centroid_logits
    if config.classifier == "ridge":
        classify = partial(ridge_logits, penalty=config.ridge)

    def embedding(images: Tensor, norm: Norm) -> Tensor:
        return torch.cat([part(teacher, images, norm) for teacher in teachers], dim=1)

    uses_heads = config.parts != "features"
    n_parameters = sum(
        parameter.numel()
        for teacher in teachers
        for name, parameter in teacher.net.named_parameters()
        if uses_heads or not name.startswith("head.")
    )
    return centroid_learner(embedding, n_parameters, BN_MODES[config.bn], classify)


def _part(config: EnsembleConfig) -> Callable[[Teacher, Tensor, Norm], Tensor]:
    """Return (teacher, images, norm) → what the teacher contributes (B, D)."""

    names = config.parts.split("+")

    def values(teacher: Teacher, images: Tensor, norm: Norm) -> list[Tensor]:
        features = teacher.net.features(resize(images, teacher.spec.image_size), norm)
        found = {"features": _signed_root(features) if config.root else features}
        if names != ["features"]:
            found["logits"] = teacher.net.head(features)
            soft = F.softmax(found["logits"] / config.temperature, dim=1)
            found["soft_labels"] = soft.sqrt() if config.root else soft
        return [found[name] for name in names]

    def part(teacher: Teacher, images: Tensor, norm: Norm) -> Tensor:
        found = values(teacher, images, norm)
        if config.views == "mirrored":
            mirrored = values(teacher, images.flip(-1), norm)
            found = [(a + b) / 2 for a, b in zip(found, mirrored, strict=True)]
        weight = teacher.accuracy**config.accuracy_power
        return torch.cat([weight * unit(value) for value in found], dim=1)

    return part


def _signed_root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def resize(images: Tensor, size: int) -> Tensor:
    """Return square images (B, C, H, H) at another side length, bilinear and anti-aliased."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
