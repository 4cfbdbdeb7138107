"""BD-CSPN: prototypes rectified by the queries that are predicted as their class."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.transductive._head import TransductiveHead, reduced
from bench.contract import Config
from bench.learners.centroids import Classify, class_means, members, unit


class BdCspnConfig(Config):
    """How sharply similarities weigh."""

    scale: float = Field(default=10.0, gt=0)
    """factor of the cosine similarity. Source: the paper's ε."""


class BdCspn(TransductiveHead[BdCspnConfig]):
    """BD-CSPN: shift the queries to the support set, then rectify each class's prototype.

    Liu, Song and Qin, "Prototype Rectification for Few-Shot Learning", ECCV 2020, arXiv 1911.10713,
    section 3: the queries are moved by mean(support) - mean(queries), which diminishes the
    cross-class bias; each query joins the class of the most similar prototype, and the prototype
    becomes the mean of the class's rows, weighted by the softmax of 10 · cosine, which diminishes
    the bias within the class; cosine similarity decides. Support images keep their own class.
    Departure: rows have length 1 when they are averaged, as in the public code of LaplacianShot
    (ICML 2020); no base classes are used.
    """

    name = "bd_cspn"
    Config = BdCspnConfig

    def classifier(self, config: BdCspnConfig) -> Classify:
        """Return the classifier."""
        return partial(bd_cspn_logits, scale=config.scale)


def bd_cspn_logits(
    support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int, scale: float
) -> Tensor:
    """Return scale · cosine to the rectified prototypes (…, Q, n_way); the rest as `Classify`."""
    support, query = reduced(support_e, query_e)
    query = query + support.mean(-2, keepdim=True) - query.mean(-2, keepdim=True)
    rows = unit(torch.cat([support, query], dim=-2))
    similarity = scale * rows @ unit(class_means(support, support_y, n_way)).mT
    predicted = similarity[..., support.shape[-2] :, :].argmax(-1)
    joined = members(torch.cat([support_y, predicted], dim=-1), n_way)  # (…, S + Q, n_way)
    weights = similarity.softmax(-1) * joined
    prototypes = unit(weights.mT @ rows)
    return scale * rows[..., support.shape[-2] :, :] @ prototypes.mT
