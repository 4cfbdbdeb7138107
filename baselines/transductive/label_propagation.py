"""Label propagation on the graph of a task's images."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.transductive._head import TransductiveHead, centred_units, reduced
from bench.contract import Config
from bench.learners.centroids import EPSILON, Classify, members, squared_distances


class LabelPropagationConfig(Config):
    """The graph, and how far labels spread on it."""

    width: float = Field(default=0.2, gt=0)
    """σ²: edges weigh exp(-d² / σ²). Ours; the paper learns it."""
    alpha: float = Field(default=0.7, gt=0, lt=1)
    """share of a node's label that comes from its neighbours. Ours; the paper takes 0.99."""


class LabelPropagation(TransductiveHead[LabelPropagationConfig]):
    """Label propagation: labels of the support set spread along similar images, in closed form.

    Liu et al., "Learning to Propagate Labels: Transductive Propagation Network for Few-Shot
    Learning", ICLR 2019, arXiv 1805.10002, equations 1 to 3 (Zhou et al., NIPS 2003):
    W = exp(-d² / σ²) without loops, S = D^(-1/2) W D^(-1/2), F = (I - αS)^(-1) Y. Departures: one
    fixed σ on embeddings that are centred on the task's mean and have length 1; every pair is an
    edge; nothing is learned.
    """

    name = "label_propagation"
    Config = LabelPropagationConfig

    def classifier(self, config: LabelPropagationConfig) -> Classify:
        """Return the classifier."""
        return partial(propagated_logits, width=config.width, alpha=config.alpha)


def propagated_logits(
    support_e: Tensor,
    support_y: Tensor,
    query_e: Tensor,
    n_way: int,
    width: float,
    alpha: float,
) -> Tensor:
    """Return the logarithm of the propagated labels (…, Q, n_way); the rest as `Classify`."""
    rows = torch.cat(centred_units(*reduced(support_e, query_e)), dim=-2)
    eye = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
    edges = (-squared_distances(rows, rows) / width).exp() * (1 - eye)
    root = edges.sum(-1, keepdim=True).clamp_min(EPSILON).rsqrt()
    spread = eye - alpha * root * edges * root.mT
    known = members(support_y, n_way).to(rows.dtype)
    given = torch.cat([known, known.new_zeros(*query_e.shape[:-1], n_way)], dim=-2)
    found = torch.linalg.solve(spread, given)[..., support_e.shape[-2] :, :]
    return found.clamp_min(EPSILON).log()
