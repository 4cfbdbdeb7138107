"""PT-MAP: a power transform, then class centres by optimal transport of the queries."""

from __future__ import annotations

import math
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.transductive._head import TransductiveHead, reduced
from bench.contract import Config
from bench.learners.centroids import Classify, members, squared_distances, unit
from bench.nets.precision import has_float64


class PtMapConfig(Config):
    """The transform, and how centres are estimated."""

    power: float = Field(default=0.5, gt=0)
    """exponent of the magnitude of each embedding dimension, which keeps its sign. Source: the
    paper's β."""
    steps: int = Field(default=20, ge=0)
    """rounds of assignment and centres. Source: the paper."""
    sharpness: float = Field(default=10.0, gt=0)
    """factor of the squared distances: the paper's λ, inverse strength of the entropy term"""
    rate: float = Field(default=0.2, gt=0, le=1)
    """step of the centres towards their estimates. Source: the paper's α for 1 shot."""
    balanced: bool = True
    """whether the assignment is told that all classes have equally many queries, as published;
    else each query is assigned by a softmax"""
    rounds: int = Field(default=100, ge=1)
    """iterations of Sinkhorn's algorithm in each step, in place of a test of convergence. Ours."""


class PtMap(TransductiveHead[PtMapConfig]):
    """PT-MAP: power transform and maximum-a-posteriori centres by Sinkhorn assignment.

    Hu, Gripon and Pateux, "Leveraging the Feature Distribution in Transfer-based Few-Shot
    Learning", ICANN 2021, arXiv 2006.03806, equations 1 to 6 and algorithm 1. Embeddings to the
    power of 1/2, length 1, support and queries each centred on their mean, length 1; in each step
    the queries are assigned to the centres by entropic optimal transport, with rows that sum to 1
    and columns that sum to the number of queries per class, and the centres move towards the means
    under that assignment. **It is told the numbers of queries per class**: see `balanced`.
    Departures: the root keeps the sign of embeddings that may be negative; a fixed number of
    Sinkhorn iterations.
    """

    name = "pt_map"
    Config = PtMapConfig

    def classifier(self, config: PtMapConfig) -> Classify:
        """Return the classifier."""
        return partial(pt_map_logits, config=config)


def pt_map_logits(
    support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int, config: PtMapConfig
) -> Tensor:
    """Return the logarithm of the final assignment (…, Q, n_way); the rest as `Classify`."""
    rooted = (unit(e.sign() * e.abs() ** config.power) for e in (support_e, query_e))
    support, query = (unit(e - e.mean(-2, keepdim=True)) for e in reduced(*rooted))
    member = members(support_y, n_way).to(support.dtype)
    sums, counts = member.mT @ support, member.sum(-2)
    means = sums / counts.unsqueeze(-1)

    def assigned() -> Tensor:
        scores = -config.sharpness * squared_distances(query, means)
        if not config.balanced:
            return scores.log_softmax(-1)
        return log_transport(scores, config.rounds).to(scores.dtype)

    for _ in range(config.steps):
        p = assigned().exp()
        estimates = (sums + p.mT @ query) / (counts + p.sum(-2)).unsqueeze(-1)
        means = means + config.rate * (estimates - means)
    return assigned()


def log_transport(scores: Tensor, rounds: int) -> Tensor:
    """Return the logarithm of exp(scores) scaled to rows of sum 1 and columns of equal sums.

    Sinkhorn and Knopp's alternating scaling in float64, which takes a factor per row and per column
    instead of all logarithms anew; rows last, so that their sums are exact.

    Args:
        scores: (…, Q, n_way).
        rounds: iterations.
    """
    wide = torch.float64 if has_float64(scores.device) else scores.dtype
    scores = scores.to(wide)
    scores = scores - scores.amax((-2, -1), keepdim=True)
    scores = scores.clamp_min(0.85 * math.log(torch.finfo(wide).tiny))  # no score is that low
    kernel, n_queries = scores.exp(), scores.shape[-2]
    rows = torch.ones_like(kernel[..., :1])  # (…, Q, 1)
    columns = torch.ones_like(kernel[..., :1, :])  # (…, 1, n_way)
    for _ in range(rounds):
        columns = n_queries / scores.shape[-1] / (rows.mT @ kernel)
        rows = 1 / (kernel @ columns.mT)
    return scores + rows.log() + columns.log()
