"""SUR: nearest centroids of all teachers' features, each weighted by what the support set asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.centroids.ensemble_centroids import (
    EnsembleConfig,
    differing_normalisation,
    part_width,
    teachers_learner,
)
from bench.contract import (
    BnMode,
    Budget,
    Config,
    FitContext,
    Learner,
    Method,
    ProtocolConstants,
    TaskShape,
)
from bench.learners.centroids import EPSILON, class_means, members

RATE = 3000.0
"""Adadelta's rate times the number of classes."""


class SurConfig(Config):
    """What each teacher contributes, and how its weight is learned."""

    views: Literal["one", "mirrored"] = "one"
    """`mirrored`: the mean of the features over an image and its mirror image, at twice the cost"""
    root: bool = False
    """take the square root of the magnitude of each feature first, keeping its sign"""
    steps: int = Field(40, ge=0)
    """steps on the weights, in each task. Source: the paper."""
    learning_rate: float | None = Field(None, gt=0)
    """Adadelta's rate on the weights before the sigmoid; None is 3,000 / n_way. Source: the
    released code."""
    scale: float = Field(10.0, gt=0)
    """factor of the cosine similarity. Source: the released code."""

    def rate(self, n_way: int) -> float:
        """Return Adadelta's rate in tasks of so many classes."""
        return RATE / n_way if self.learning_rate is None else self.learning_rate


class Sur(Method[SurConfig]):
    """Features of all teachers, each block weighted per task; nearest centroid by cosine.

    Dvornik, Schmid and Mairal, "Selecting Relevant Features from a Multi-domain Representation for
    Few-shot Classification", ECCV 2020, arXiv 2003.09338, section 3.2: with the extractors frozen,
    one weight per extractor, the sigmoid of a parameter that starts at 0, is learned on the support
    set by lowering the cross-entropy of its images under the nearest centroids of the weighted,
    concatenated features. Made for extractors of several domains. With one support image per class
    each of them is its own centroid, so that little can be learned.

    Departure: the extractors are teachers of a few classes each, all of one domain in most suites.
    """

    name = "sur"
    knowledge = "features"
    default_learner = "centroids"
    own_learner = True
    Config = SurConfig

    @classmethod
    def bn_of(
        cls, config: SurConfig, learner: type[Learner], protocol: ProtocolConstants
    ) -> BnMode:
        """Return `running`: teachers normalise by their stored statistics."""
        return "running"

    @classmethod
    def in_force(
        cls,
        config: SurConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the rate, which follows from the number of classes."""
        return {"learning_rate": config.rate(shape.n_way)}

    def skip(self, context: FitContext[SurConfig]) -> str | None:
        """Skip teachers with different normalisation: all of them read the same pixels."""
        return differing_normalisation(context.pool)

    def fit(self, context: FitContext[SurConfig]) -> dict[str, Tensor]:
        """Return an empty fit: the weights are learned in each task."""
        return {}

    def learner(self, context: FitContext[SurConfig], fitted: Mapping[str, Tensor]) -> Learner:
        """Return the learner of all teachers."""
        config, teachers = context.config, tuple(context.pool)
        chosen = {"parts": "features", "root": config.root, "views": config.views}
        parts = EnsembleConfig.model_validate(chosen)
        widths = [part_width(teacher, parts) for teacher in teachers]
        classify = partial(sur_logits, widths=widths, config=config)
        return teachers_learner(teachers, parts, n_way=context.shape.n_way, classify=classify)


def sur_logits(
    support_e: Tensor,
    support_y: Tensor,
    query_e: Tensor,
    n_way: int,
    widths: Sequence[int],
    config: SurConfig,
) -> Tensor:
    """Return scale · cosine to the class means (…, Q, n_way) under the learned weights.

    Args:
        support_e: embeddings (…, S, D) that consist of one block per teacher.
        support_y: labels (…, S) in [0, n_way).
        query_e: embeddings (…, Q, D).
        n_way: the number of classes.
        widths: dimensions of each block, in their order.
        config: steps, rate and scale.
    """
    means = class_means(support_e, support_y, n_way)
    support = _Products(support_e, means, widths)
    weights = learned_weights(support, support_y, n_way, config)
    return config.scale * _Products(query_e, means, widths).cosines(weights)


def learned_weights(support: _Products, support_y: Tensor, n_way: int, config: SurConfig) -> Tensor:
    """Return the weight of each block (…, B), in (0, 1), after the steps on the support set."""
    wanted = members(support_y, n_way)
    free = torch.zeros_like(support.means[..., 0, :]).requires_grad_()  # (…, B)
    optimiser = torch.optim.Adadelta([free], lr=config.rate(n_way))
    for _ in range(config.steps):
        with torch.enable_grad():
            logits = config.scale * support.cosines(free.sigmoid())
            loss = -(logits.log_softmax(-1) * wanted).sum(-1).mean(-1).sum()
        (free.grad,) = torch.autograd.grad(loss, [free])
        optimiser.step()
    return free.detach().sigmoid()


class _Products:
    """Inner products within each of B blocks, from which weighted cosines follow at once.

    Args:
        embeddings: (…, R, D).
        means: (…, n_way, D).
        widths: dimensions of each block.

    Attributes:
        inner: of each row with each mean, (…, R, n_way, B).
        rows: squared lengths (…, R, B).
        means: squared lengths (…, n_way, B).
    """

    def __init__(self, embeddings: Tensor, means: Tensor, widths: Sequence[int]) -> None:
        blocks = list(
            zip(embeddings.split(list(widths), -1), means.split(list(widths), -1), strict=True)
        )
        self.inner = torch.stack([a @ b.mT for a, b in blocks], dim=-1)
        self.rows = torch.stack([a.square().sum(-1) for a, _ in blocks], dim=-1)
        self.means = torch.stack([b.square().sum(-1) for _, b in blocks], dim=-1)

    def cosines(self, weights: Tensor) -> Tensor:
        """Return the cosines (…, R, n_way) of rows and means under weights (…, B)."""
        squares = weights.square().unsqueeze(-1)  # (…, B, 1)
        inner = (self.inner @ squares.unsqueeze(-3)).squeeze(-1)
        lengths = (self.rows @ squares) * (self.means @ squares).mT
        return inner / (lengths + EPSILON).sqrt()
