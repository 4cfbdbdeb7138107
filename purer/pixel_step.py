"""The pixel step: one Adam step on all pseudo images against all teachers' inversion losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Pool
from purer.dynamic_dataset import DynamicDataset
from purer.inversion import InversionWeights, inversion_loss, roll

TeacherWeights = Literal["uniform", "cumulative"]


class PixelStep:
    """Inversion gradients of a dynamic data set, and the optimiser of its pixels.

    One teacher at a time is differentiated, so that memory holds one teacher's activations.

    Args:
        dataset: the pseudo images, changed in place.
        pool: the teachers whose blocks the data set holds, in its order.
        weights: factors of the inversion terms.
        lr: Adam's rate, normalised units.
        clip: bound on the magnitude of a pixel after a step, or None.
        jitter: largest shift, pixels each way, of a teacher's block; drawn per teacher and step.
        teacher_weights: `uniform`, each teacher counts once; `cumulative`, the i-th of the N of a
            step counts N - i times (the released code adds the running sum inside its loop, H4).
        generator: CPU generator of the shifts.
    """

    def __init__(
        self,
        dataset: DynamicDataset,
        pool: Pool,
        weights: InversionWeights,
        lr: float,
        clip: float | None,
        jitter: int,
        teacher_weights: TeacherWeights,
        generator: torch.Generator,
    ):
        self._dataset, self._pool, self._weights = dataset, pool, weights
        self._clip, self._jitter, self._generator = clip, jitter, generator
        self._teacher_weights = teacher_weights
        self._optimiser = torch.optim.Adam([dataset.images], lr=lr, fused=True)

    def inversion_gradient(
        self, teachers: Sequence[int] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient of the summed inversion losses on all pixels, and the mean terms.

        Args:
            teachers: the numbers of the step's teachers; None takes all. Images that none of them
                owns get no gradient.

        Returns:
            Gradient of the shape of the data set's images; unweighted terms by name, 0-d tensors,
            each the mean over the step's teachers.
        """
        chosen = range(len(self._pool)) if teachers is None else teachers
        gradient = torch.zeros_like(self._dataset.images)
        offsets, factors = self._offsets(), self.factors(len(chosen))
        terms = []
        for index, factor in zip(chosen, factors, strict=True):
            block_gradient, block_terms = self._teacher_gradient(index, *offsets[index])
            rows = self._dataset.rows[index]
            block_gradient = block_gradient.reshape(len(rows), *gradient.shape[1:])
            gradient.index_add_(0, rows, block_gradient, alpha=factor)
            terms.append(block_terms)
        names = ("inversion", "cross_entropy", "bn_statistics", "total_variation", "l2")
        return gradient, dict(zip(names, torch.stack(terms).mean(0), strict=True))

    def factors(self, n: int) -> list[int]:
        """Return how often each of a step's n teachers counts, in their order."""
        return [n - i if self._teacher_weights == "cumulative" else 1 for i in range(n)]

    def _offsets(self) -> list[list[int]]:
        """Draw a shift (dy, dx) for every teacher of the pool, whichever the step takes."""
        size = (len(self._pool), 2)
        draw = torch.randint(-self._jitter, self._jitter + 1, size, generator=self._generator)
        return draw.tolist()

    def _teacher_gradient(self, index: int, dy: int, dx: int) -> tuple[Tensor, Tensor]:
        """Return one teacher's gradient on its block (n_i · M, 3, H, W), and its terms (5,)."""
        images, labels = self._dataset.teacher_batch(index)
        rolled = _laid_out(roll(images.detach(), dy, dx)).requires_grad_()
        loss = inversion_loss(self._pool[index].net, rolled, labels, self._weights)
        (gradient,) = torch.autograd.grad(loss.total, rolled)
        terms = (
            loss.total,
            loss.cross_entropy,
            loss.bn_statistics,
            loss.total_variation,
            loss.l2,
        )
        return roll(gradient, -dy, -dx), torch.stack(terms).detach()

    def apply(self, gradient: Tensor) -> None:
        """Make one Adam step along a gradient of the shape of the images; clip where asked."""
        self._dataset.images.grad = gradient
        self._optimiser.step()
        self._dataset.images.grad = None
        if self._clip is not None:
            self._dataset.clip(self._clip)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the pixels, the optimiser's state and the shifts' stream."""
        return {
            "images": self._dataset.images.detach().clone(),
            "optimiser": deepcopy(self._optimiser.state_dict()),
            "jitter": self._generator.get_state(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._dataset.images.copy_(state["images"])
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self._generator.set_state(state["jitter"].cpu())


def _laid_out(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) with channels last in memory on a CPU, where pooling likes it."""
    if images.device.type != "cpu":
        return images
    return images.contiguous(memory_format=torch.channels_last)
