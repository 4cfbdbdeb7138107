"""Classifiers on embeddings other than the nearest centroid, and transforms of embeddings.

All are `Classify` functions of `bench/learners/centroids.py`, pure and batched over tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.learners.centroids import (
    EPSILON,
    Classify,
    centroid_logits,
    class_means,
    ridge_logits,
    unit,
)

CentroidsOrRidge = Literal["centroids", "ridge", "centroids+ridge"]
LOGISTIC_STEPS = 300


def logistic_logits(
    support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int, penalty: float
) -> Tensor:
    """Return the outputs of a multinomial logistic regression on the support set.

    Embeddings are centred on the support's mean and scaled to a mean square of 1. What is lowered
    is the mean cross-entropy plus penalty/2 · ‖W‖²; by accelerated gradient descent among the S
    support images, whose combinations the rows of W are, not in the D dimensions.

    Args:
        support_e: embeddings (…, S, D).
        support_y: labels (…, S) in [0, n_way).
        query_e: embeddings (…, Q, D).
        n_way: the number of classes.
        penalty: above 0; the smaller, the slower the descent.

    Returns:
        Logits (…, Q, n_way).
    """
    mean = support_e.mean(-2, keepdim=True)
    support, query = support_e - mean, query_e - mean
    gram = support @ support.mT  # (…, S, S)
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + EPSILON
    gram, n = gram / scale, gram.shape[-1]
    target = F.one_hot(support_y, n_way).to(gram.dtype)
    # the loss's curvature is at most half the gram's greatest eigenvalue over n, at most its trace
    curvature = torch.linalg.matrix_norm(gram, ord=2)[..., None, None] / (2 * n) + penalty
    momentum = _momentum(penalty / curvature)
    weights = ahead = torch.zeros_like(target)  # (…, S, n_way)
    for _ in range(LOGISTIC_STEPS):
        slope = ((gram @ ahead).softmax(-1) - target) / n + penalty * ahead
        step = ahead - slope / curvature
        ahead, weights = step + momentum * (step - weights), step
    return query @ support.mT @ weights / scale


def voting(classifiers: Sequence[Classify]) -> Classify:
    """Return the classifier whose logits are the mean of several, standardised per query.

    A query's logits are brought to mean 0 and deviation 1 over the classes first, so that none of
    the classifiers outweighs another; no query touches another's logits.
    """

    def classify(support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int) -> Tensor:
        votes = [one(support_e, support_y, query_e, n_way) for one in classifiers]
        return torch.stack([_standardised(vote) for vote in votes]).mean(0)

    return classify


def named_classifier(name: CentroidsOrRidge, penalty: float) -> Classify:
    """Return the classifier of a name: the nearest centroid, `ridge_logits`, or both, voting."""
    ridge = partial(ridge_logits, penalty=penalty)
    kinds: dict[str, Classify] = {
        "centroids": centroid_logits,
        "ridge": ridge,
        "centroids+ridge": voting((centroid_logits, ridge)),
    }
    return kinds[name]


def _standardised(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + EPSILON)


def _momentum(share: Tensor) -> Tensor:
    """Return Nesterov's factor where the least curvature is so large a share of the greatest."""
    root = share.sqrt()
    return (1 - root) / (1 + root)


def on_support_statistics(classify: Classify, whiten: bool) -> Classify:
    """Return a classifier whose embeddings are centred or whitened with the support's statistics.

    The support's mean is taken off support and queries; with `whiten` each dimension is divided
    by the support's deviation in it, where that is not 0; then all have length 1 again. SimpleShot
    (arXiv 1911.04623) centres so, on the base classes' mean.
    """

    def moved(support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int) -> Tensor:
        mean = support_e.mean(-2, keepdim=True)
        support, query = support_e - mean, query_e - mean
        if whiten:
            deviation = support.square().mean(-2, keepdim=True).sqrt()
            scale = torch.where(deviation > EPSILON, 1 / deviation, 0)
            support, query = support * scale, query * scale
        return classify(unit(support), support_y, unit(query), n_way)

    return moved


def weighted_by_support(classify: Classify, widths: Sequence[int], power: float) -> Classify:
    """Return a classifier that weights blocks of the embedding by their separation of the support.

    A block's weight is the mean squared distance between two class means in it, relative to the
    mean square of its support embeddings, to a power. A block that is 0 throughout weighs 0.

    Args:
        classify: what gets the weighted embeddings.
        widths: dimensions of each block, in their order.
        power: 0 weighs all alike.
    """

    def weighted(support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int) -> Tensor:
        means = class_means(support_e, support_y, n_way)
        spread = means - means.mean(-2, keepdim=True)
        factors = []
        for block, part in zip(
            spread.split(list(widths), -1), support_e.split(list(widths), -1), strict=True
        ):
            # the mean over pairs of |a - b|² is 2 n / (n - 1) times the mean square from the centre
            between = block.square().sum(-1).mean(-1) * (2 * n_way / max(1, n_way - 1))
            size = part.square().sum(-1).mean(-1) + EPSILON
            factor = (between / size) ** power
            factors.append(factor[..., None].expand(*factor.shape, block.shape[-1]))
        weight = torch.cat(factors, -1).unsqueeze(-2)  # (…, 1, D)
        return classify(support_e * weight, support_y, query_e * weight, n_way)

    return weighted
