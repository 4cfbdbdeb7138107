"""Soft k-means on the embeddings of a task, support images fixed to their classes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from baselines.transductive._head import TransductiveHead, centred_units, reduced
from bench.contract import Config
from bench.learners.centroids import Classify, members, squared_distances

if TYPE_CHECKING:
    from torch import Tensor


class SoftKMeansConfig(Config):
    """How often the means move, and how soft the assignment is."""

    steps: int = Field(default=30, ge=0)
    """rounds of assignment and means. Source: EASY (Bendou et al., arXiv 2201.09699)."""
    sharpness: float = Field(default=5.0, gt=0)
    """factor of the squared distances in the softmax. Source: EASY."""


class SoftKMeans(TransductiveHead[SoftKMeansConfig]):
    """Soft k-means: class means move to the queries that are assigned to them.

    Ren et al., "Meta-Learning for Semi-Supervised Few-Shot Classification", ICLR 2018, arXiv
    1803.00676, equation 4, on the queries in place of further images, with the steps of EASY
    (Bendou et al., arXiv 2201.09699, section 3.4): embeddings are centred on the mean of all rows
    of the task and scaled to length 1. In each round p = softmax(-5 d²) over the classes, and a
    mean is (Σ support + Σ p · query) / (K + Σ p).
    """

    name = "soft_kmeans"
    Config = SoftKMeansConfig

    def classifier(self, config: SoftKMeansConfig) -> Classify:
        """Return the classifier."""
        return partial(soft_kmeans_logits, steps=config.steps, sharpness=config.sharpness)


def soft_kmeans_logits(
    support_e: Tensor,
    support_y: Tensor,
    query_e: Tensor,
    n_way: int,
    steps: int,
    sharpness: float,
) -> Tensor:
    """Return -sharpness · d² to the final means (…, Q, n_way); the rest as `Classify`."""
    support, query = centred_units(*reduced(support_e, query_e))
    member = members(support_y, n_way).to(support.dtype)  # (…, S, n_way)
    sums, counts = member.mT @ support, member.sum(-2)
    means = sums / counts.unsqueeze(-1)
    for _ in range(steps):
        p = (-sharpness * squared_distances(query, means)).softmax(-1)
        means = (sums + p.mT @ query) / (counts + p.sum(-2)).unsqueeze(-1)
    return -sharpness * squared_distances(query, means)
