"""α-TIM: prototypes by gradient descent on a generalised mutual information."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.transductive._head import TransductiveHead
from bench.contract import Config
from bench.learners.centroids import Classify, class_means, members, squared_distances, unit


class AlphaTimConfig(Config):
    """The entropies, their weights, and the descent."""

    alpha: float | None = Field(default=None, gt=1)
    """order of the Tsallis entropies; None is 2 with one support image per class, else 7. Source:
    the paper's tuned values."""
    temperature: float = Field(default=15.0, gt=0)
    """logits are -temperature/2 · d². Source: TIM's released code."""
    support_weight: float = Field(default=1.0, ge=0)
    """factor of the support's cross-entropy. Source: the paper."""
    marginal_weight: float = Field(default=1.0, ge=0)
    """factor of the entropy of the mean prediction, which is raised. Source: the paper."""
    conditional_weight: float = Field(default=1.0, ge=0)
    """factor of the mean entropy of the predictions, which is lowered. Source: the paper."""
    steps: int = Field(default=1000, ge=0)
    """steps of Adam. Source: the paper."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's rate on the prototypes. Source: the paper."""


class AlphaTim(TransductiveHead[AlphaTimConfig]):
    """α-TIM: transductive information maximisation that assumes no balance of the queries.

    Veilleux, Boudiaf, Piantanida and Ben Ayed, "Realistic Evaluation of Transductive Few-Shot
    Learning", NeurIPS 2021, arXiv 2204.11181, equations 5 to 7. From the class means on, Adam
    lowers the support's cross-entropy, minus the entropy of the queries' mean prediction, plus the
    mean entropy of their predictions; both entropies are of Tsallis,
    H_α(p) = (1 - Σ p^α) / (α - 1), so that unequal classes cost little. Embeddings have length 1.
    """

    name = "alpha_tim"
    Config = AlphaTimConfig

    def classifier(self, config: AlphaTimConfig) -> Classify:
        """Return the classifier."""
        return partial(alpha_tim_logits, config=config)


def alpha_tim_logits(
    support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int, config: AlphaTimConfig
) -> Tensor:
    """Return the logits of the final prototypes (…, Q, n_way); the rest as `Classify`."""
    support, query = unit(support_e), unit(query_e)
    member = members(support_y, n_way)
    alpha = config.alpha or (2.0 if support_y.shape[-1] == n_way else 7.0)
    prototypes = class_means(support, support_y, n_way).requires_grad_()
    optimiser = torch.optim.Adam([prototypes], lr=config.learning_rate)
    for _ in range(config.steps):
        with torch.enable_grad():
            logits = [_logits(e, prototypes, config.temperature) for e in (support, query)]
            loss = _losses(logits[0], member, logits[1], alpha, config).sum()
        (prototypes.grad,) = torch.autograd.grad(loss, [prototypes])
        optimiser.step()
    return _logits(query, prototypes.detach(), config.temperature)


def _logits(embeddings: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    return -temperature / 2 * squared_distances(embeddings, prototypes)


def _losses(
    support: Tensor, member: Tensor, query: Tensor, alpha: float, config: AlphaTimConfig
) -> Tensor:
    """Return the loss of each task (…) from logits (…, S, n_way) and (…, Q, n_way)."""
    cross_entropy = -(support.log_softmax(-1) * member).sum(-1).mean(-1)
    p = query.softmax(-1)
    marginal, conditional = tsallis(p.mean(-2), alpha), tsallis(p, alpha).mean(-1)
    return (
        config.support_weight * cross_entropy
        - config.marginal_weight * marginal
        + config.conditional_weight * conditional
    )


def tsallis(p: Tensor, alpha: float) -> Tensor:
    """Return the Tsallis entropy (…) of distributions (…, n), of order alpha above 1."""
    return (1 - (p**alpha).sum(-1)) / (alpha - 1)
