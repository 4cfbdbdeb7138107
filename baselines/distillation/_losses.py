"""Distillation losses: predictions, soft labels, features and pairwise similarities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["kl", "as_published"]
"""`kl`: the Kullback-Leibler divergence of the student from the teacher, mean over images;
`as_published`: the released code's, which puts probabilities where log-probabilities belong and
divides by the classes as well (hazard H14)."""


def distillation_loss(logits: Tensor, answers: Tensor, kind: Divergence = "kl") -> Tensor:
    """Return the divergence of a student's predictions from a teacher's, a 0-d tensor.

    Args:
        logits: the student's (B, n); outputs beyond the teacher's classes are cut off before.
        answers: the teacher's log-probabilities (B, n).
        kind: see `Divergence`.
    """
    if kind == "kl":
        return F.kl_div(F.log_softmax(logits, 1), answers, log_target=True, reduction="batchmean")
    return (answers.exp() * (answers - F.softmax(logits, 1))).mean()


def agreeing(logits: Tensor, answers: Tensor) -> Tensor:
    """Return (…,) 1 where student and teacher, both (…, n), predict the same class, else 0."""
    return (logits.argmax(-1) == answers.argmax(-1)).to(answers.dtype)


def soft_label_loss(
    logits: Tensor, wanted: Tensor, widths: Sequence[int], temperature: float
) -> Tensor:
    """Return the divergence of a student's soft labels from those of its teachers.

    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531: the
    Kullback-Leibler divergence at a temperature, times the temperature's square.

    Args:
        logits: the student's, (B, Σ widths), teacher after teacher.
        wanted: the teachers', (B, Σ widths).
        widths: classes of each teacher.
        temperature: divisor of all logits.

    Returns:
        0-d tensor, the mean over images and teachers; 0 for equal soft labels.
    """
    pairs = zip(
        (logits / temperature).split(list(widths), 1),
        (wanted / temperature).split(list(widths), 1),
        strict=True,
    )
    divergences = [
        F.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean")
        for a, b in pairs
    ]
    return temperature**2 * torch.stack(divergences).mean()


def feature_loss(features: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 minus the mean cosine of two embeddings (B, D) of the same images, a 0-d tensor."""
    return 1 - F.cosine_similarity(features, wanted, dim=1).mean()


def similarity_loss(features: Tensor, wanted: Tensor) -> Tensor:
    """Return the difference between a batch's pairwise similarities and the teachers'.

    That two networks shall find the same images alike, whatever the dimensions of their features:
    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682, and
    Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. Here by centred
    kernel alignment (Cortes et al., JMLR 2012): similarities count up to a scale and a shift,
    which is all that the nearest centroid asks for.

    Args:
        features: the student's (B, d), of the length in which they are compared.
        wanted: the teachers' (B, D).

    Returns:
        0-d tensor, 1 less the cosine of the two centred Gram matrices; 0 for equal features.
    """
    gram, target = _centred(features @ features.T), _centred(wanted @ wanted.T)
    return 1 - F.cosine_similarity(gram.flatten(), target.flatten(), dim=0)


def _centred(gram: Tensor) -> Tensor:
    """Return a symmetric matrix (B, B) minus the means of its rows and columns."""
    rows = gram.mean(0, keepdim=True)
    return gram - rows - rows.T + rows.mean()
