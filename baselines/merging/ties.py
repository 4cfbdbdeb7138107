"""TIES merging: trim the task vectors, elect a sign for each weight, average those that agree."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._merging import MergeConfig
from baselines.merging._task_vectors import TaskVectorMerge
from bench.contract import FitContext


class TiesConfig(MergeConfig):
    """The share of each task vector that is kept, and the scale of the result."""

    density: float = Field(0.2, gt=0, le=1)
    """share of a teacher's weights, those that moved furthest, that is kept. Source: the paper."""
    scale: float = Field(1.0, gt=0)
    """factor of the merged task vector. Source: the paper, without validation data."""


class Ties(TaskVectorMerge[TiesConfig]):
    """Trim task vectors, elect a sign per weight, average the values with that sign.

    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
    arXiv 2306.01708, algorithm 1. Departures: the start is a random initialisation that all
    teachers share, not a pre-trained network; batch norm statistics are averaged.
    """

    name = "ties"
    Config = TiesConfig

    def combine(self, vectors: Tensor, context: FitContext[TiesConfig]) -> Tensor:
        """Return the merged and scaled task vector (D,) of (N, D)."""
        return context.config.scale * ties_vector(vectors, context.config.density)


def ties_vector(vectors: Tensor, density: float) -> Tensor:
    """Return the merged task vector (D,) of task vectors (N, D).

    Worked by hand, density 2 / 3: (3, -1, 2) and (-2, -4, 1) trim to (3, 0, 2) and (-2, -4, 0);
    the sums (1, -4, 2) elect the signs (+, -, +); the means of those that agree are (3, -4, 2).
    """
    kept = trimmed(vectors, density)
    sign = kept.sum(0).sign()
    agrees = (kept.sign() == sign) & (kept != 0)
    return torch.where(agrees, kept, 0).sum(0) / agrees.sum(0).clamp_min(1)


def trimmed(vectors: Tensor, density: float) -> Tensor:
    """Return task vectors (N, D) in which only the share of largest magnitude is not 0."""
    count = max(1, round(density * vectors.shape[1]))
    places = vectors.abs().topk(count, dim=1).indices
    return torch.zeros_like(vectors).scatter(1, places, vectors.gather(1, places))
