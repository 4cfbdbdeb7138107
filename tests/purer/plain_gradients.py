"""The teachers' gradients by plain automatic differentiation: what the fast backends must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import Pool
from bench.inversion.losses import TERMS, InversionWeights, inversion_loss


class PlainGradients:
    """`purer.gradients.TeacherGradients` of one teacher after the other.

    Args: as for `purer.stacked_gradients.StackedGradients`.
    """

    def __init__(self, pool: Pool, labels: Sequence[Tensor], weights: InversionWeights):
        self._pool, self._labels, self._weights = pool, labels, weights

    def __call__(
        self, teachers: Sequence[int], blocks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return each teacher's gradient on its block, and the terms."""
        results = [self._teacher(i, block) for i, block in zip(teachers, blocks, strict=True)]
        gradients, terms = zip(*results, strict=True)
        return list(gradients), torch.stack(terms)

    def _teacher(self, index: int, block: Tensor) -> tuple[Tensor, Tensor]:
        block = block.clone().requires_grad_()
        loss = inversion_loss(self._pool[index].net, block, self._labels[index], self._weights)
        terms = torch.stack([getattr(loss, name) for name in TERMS.values()])
        return torch.autograd.grad(loss.total, block)[0], terms.detach()
