"""Nearest class centroid on the concatenated features of all teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.centroids._trained_statistics import standardised, statistics_of
from bench.contract import (
    BnMode,
    Config,
    FitContext,
    Learner,
    Method,
    ProtocolConstants,
    Teacher,
    added,
)
from bench.learners.centroids import Classify, centroid_learner, unit
from bench.learners.classifiers import (
    logistic_logits,
    named_classifier,
    on_support_statistics,
    weighted_by_support,
)
from bench.nets.norm import Norm

Parts = Literal[
    "features", "logits", "soft_labels", "features+logits", "features+logits+soft_labels"
]
BN_MODES: dict[str, BnMode] = {"running": "running", "batch": "transductive"}


class EnsembleConfig(Config):
    """Which outputs of each teacher are used, their weights, and the classifier."""

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
    classifier: Literal["centroids", "ridge", "logistic", "centroids+ridge"] = added("centroids")
    """`ridge`, `logistic`: a linear head fitted to the support set in place of the nearest
    centroid, by least squares or by cross-entropy; `centroids+ridge`: the mean of both, each
    standardised"""
    ridge: float = added(1.5, gt=0)
    """penalty of the ridge, relative to the mean square of the centred support. Ours."""
    logistic: float = added(0.01, gt=0)
    """penalty on the weights of the logistic head, embeddings of mean square 1. Ours."""
    transform: Literal["none", "centred", "whitened"] = added("none")
    """`centred`: embeddings less their mean; `whitened`: each dimension also over its deviation"""
    statistics: Literal["support", "teachers"] = added("support")
    """whose mean and deviation the transform takes: the task's `support` set's, of the complete
    embedding; or each of the `teachers`' own, of its features, as its batch norms remember them"""
    support_fit_power: float = added(0.0, ge=0)
    """a teacher's part is multiplied, in each task, by how far apart it puts the support's class
    means, to this power; 0 weighs all alike. Ours."""

    @property
    def own_statistics(self) -> bool:
        """Whether statistics of the teachers' own training images are used."""
        return self.transform != "none" and self.statistics == "teachers"


class EnsembleCentroids(Method[EnsembleConfig]):
    """Concatenated L2-normalised features of all teachers, nearest class centroid; no training.

    Each teacher's features are scaled to length 1 before concatenation, so that all teachers have
    the same weight; the overall scale does not affect the nearest centroid. Classifier: SimpleShot
    (Wang et al., arXiv 1911.04623), "L2N". Frozen extractors side by side are prior art: SUR
    (Dvornik et al., ECCV 2020, arXiv 2003.09338; see `sur`), and Chowdhury et al., "Few-shot Image
    Classification: Just Use a Library of Pre-trained Feature Extractors and a Simple Classifier",
    ICCV 2021, arXiv 2101.00562. Ours are the constants, and the preset `tuned`, whose settings were
    chosen on validation tasks of CIFAR-FS: square roots of features, logits, and square roots of
    soft labels, each averaged over the image and its mirror image; teachers weighted by their
    squared held-out accuracy; the classifier combines the nearest centroid and a ridge regression.
    """

    name = "ensemble_centroids"
    knowledge = "features"
    default_learner = "centroids"
    own_learner = True
    Config = EnsembleConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {},
        "tuned": {
            "parts": "features+logits+soft_labels",
            "root": True,
            "views": "mirrored",
            "accuracy_power": 2.0,
            "classifier": "centroids+ridge",
            "ridge": 1.0,
        },
    }

    @classmethod
    def bn_of(
        cls, config: EnsembleConfig, learner: type[Learner], protocol: ProtocolConstants
    ) -> BnMode:
        """Return the mode that the config asks for."""
        return BN_MODES[config.bn]

    def skip(self, context: FitContext[EnsembleConfig]) -> str | None:
        """Skip teachers with different normalisation: all of them read the same pixels."""
        return differing_normalisation(context.pool) or lacking_batch_norm(
            context.pool, context.config
        )

    def fit(self, context: FitContext[EnsembleConfig]) -> dict[str, Tensor]:
        """Return an empty fit, or the teachers' statistics where the config uses them."""
        return own_statistics(context, tuple(context.pool))

    def learner(self, context: FitContext[EnsembleConfig], fitted: Mapping[str, Tensor]) -> Learner:
        """Return the nearest-centroid learner of all teachers."""
        n_way = context.shape.n_way
        return teachers_learner(tuple(context.pool), context.config, fitted, n_way)


def differing_normalisation(teachers: Sequence[Teacher]) -> str | None:
    """Return why teachers cannot share their input pixels, or None."""
    kinds = {(teacher.mean, teacher.std) for teacher in teachers}
    if len(kinds) > 1:
        return f"the teachers' images are normalised in {len(kinds)} different ways"
    return None


def lacking_batch_norm(teachers: Sequence[Teacher], config: EnsembleConfig) -> str | None:
    """Return why teachers without the batch norm that is needed cannot be used, or None."""
    if config.bn == "batch":
        why = "bn = batch normalises by the batch"
    elif config.own_statistics:
        why = "statistics = teachers are those of batch norms"
    else:
        return None
    for teacher in teachers:
        if not any(isinstance(part, nn.BatchNorm2d) for part in teacher.net.modules()):
            name = f"{teacher.name} ({teacher.spec.architecture})"
            return f"{why}; teacher {name} has no batch norm"
    return None


def own_statistics(
    context: FitContext[EnsembleConfig], teachers: Sequence[Teacher]
) -> dict[str, Tensor]:
    """Return the statistics of the teachers' own features where the config asks for them."""
    config = context.config
    if not config.own_statistics:
        return {}
    change = signed_root if config.root else lambda features: features
    return statistics_of(teachers, change, context.generator("statistics"), context.device)


def teachers_learner(
    teachers: Sequence[Teacher],
    config: EnsembleConfig,
    fitted: Mapping[str, Tensor] | None = None,
    n_way: int | None = None,
    classify: Classify | None = None,
) -> Learner:
    """Return the learner on some teachers' concatenated parts.

    Args:
        teachers: the teachers, in order.
        config: which parts, and what is made of them.
        fitted: from `own_statistics`.
        n_way: see `LearnerSettings`.
        classify: in place of the classifier that the config names.
    """
    part = _part(config, fitted or {})

    def embedding(images: Tensor, norm: Norm) -> Tensor:
        return torch.cat([part(*one, images, norm) for one in enumerate(teachers)], dim=1)

    uses_heads = config.parts != "features"
    n_parameters = sum(
        parameter.numel()
        for teacher in teachers
        for name, parameter in teacher.net.named_parameters()
        if uses_heads or not name.startswith("head.")
    )
    widths = [part_width(teacher, config) for teacher in teachers]
    classify = classify or _classifier(config, widths)
    return centroid_learner(embedding, n_parameters, BN_MODES[config.bn], classify, n_way)


def _classifier(config: EnsembleConfig, widths: Sequence[int]) -> Classify:
    """Return the classifier of embeddings that consist of one block of these widths per teacher."""
    if config.classifier == "logistic":
        classify: Classify = partial(logistic_logits, penalty=config.logistic)
    else:
        classify = named_classifier(config.classifier, config.ridge)
    if config.transform != "none" and config.statistics == "support":
        classify = on_support_statistics(classify, config.transform == "whitened")
    if config.support_fit_power:
        classify = weighted_by_support(classify, widths, config.support_fit_power)
    return classify


def part_width(teacher: Teacher, config: EnsembleConfig) -> int:
    """Return the number of dimensions of a teacher's block of the embedding."""
    head = teacher.net.head
    sizes = {"features": head.in_features}
    return sum(sizes.get(name, head.out_features) for name in config.parts.split("+"))


def _part(
    config: EnsembleConfig, fitted: Mapping[str, Tensor]
) -> Callable[[int, Teacher, Tensor, Norm], Tensor]:
    """Return the function (number, teacher, images, norm) → block (B, D) of the teacher."""
    names = config.parts.split("+")

    def values(number: int, teacher: Teacher, images: Tensor, norm: Norm) -> list[Tensor]:
        features = teacher.net.features(resize(images, teacher.spec.image_size), norm)
        found = {"features": signed_root(features) if config.root else features}
        if fitted:
            whiten = config.transform == "whitened"
            found["features"] = standardised(found["features"], fitted, number, whiten)
        if names != ["features"]:
            found["logits"] = teacher.net.head(features)
            soft = F.softmax(found["logits"] / config.temperature, dim=1)
            found["soft_labels"] = soft.sqrt() if config.root else soft
        return [found[name] for name in names]

    def part(number: int, teacher: Teacher, images: Tensor, norm: Norm) -> Tensor:
        found = values(number, teacher, images, norm)
        if config.views == "mirrored":
            mirrored = values(number, teacher, images.flip(-1), norm)
            found = [(a + b) / 2 for a, b in zip(found, mirrored, strict=True)]
        weight = teacher.accuracy**config.accuracy_power
        return torch.cat([weight * unit(value) for value in found], dim=1)

    return part


def signed_root(x: Tensor) -> Tensor:
    """Return the square roots of the magnitudes, with the signs of the values."""
    return x.sign() * x.abs().sqrt()


def resize(images: Tensor, size: int) -> Tensor:
    """Return square images (B, C, H, H) at another side length, bilinear and anti-aliased."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
