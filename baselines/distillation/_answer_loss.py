"""Divergence between a student's and a teacher's predictions."""

from __future__ import annotations

from typing import Literal

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
