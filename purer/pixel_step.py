"""The pixel step: one Adam step on all pseudo images against all teachers' inversion losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Pool
from bench.inversion.losses import TERMS, InversionWeights, roll
from purer.dynamic_dataset import DynamicDataset
from purer.gradients import TeacherGradients, chosen_backend, offered_backends

TeacherWeights = Literal["uniform", "cumulative"]


class PixelStep:
    """Inversion gradients of a dynamic data set, and the optimiser of its pixels.

    The backend of the teachers' gradients is taken at the first step; a resumed step goes on with
    the one it began with, where the device offers it (`purer/gradients.py`).

    Attributes:
        backend: its name; None before the first step.
        gradients: what computes the teachers' gradients; None before the first step.

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
        memory: bytes that the activations of one teacher's block may take at once.
        note_backend: told at the first step (what is computed, the backend's name).
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
        memory: int = 2**31,
        note_backend: Callable[[str, str], None] = lambda part, name: None,
    ) -> None:
        self._dataset, self._pool, self._weights = dataset, pool, weights
        self._clip, self._jitter, self._generator = clip, jitter, generator
        self._teacher_weights = teacher_weights
        self._optimiser = torch.optim.Adam([dataset.images], lr=lr, fused=True)
        self._note_backend = note_backend
        labels = [dataset.teacher_batch(i)[1] for i in range(len(pool))]
        self._offered = offered_backends(pool, labels, weights, memory)
        self.gradients: TeacherGradients | None = None
        self.backend: str | None = None

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
        chosen = list(range(len(self._pool)) if teachers is None else teachers)
        offsets, factors = self._offsets(), self.factors(len(chosen))
        blocks = [self._block(index, *offsets[index]) for index in chosen]
        if self.gradients is None:
            self.gradients = self._begin(chosen, blocks)
        block_gradients, terms = self.gradients(chosen, blocks)
        gradient = torch.zeros_like(self._dataset.images)
        for index, factor, found in zip(chosen, factors, block_gradients, strict=True):
            dy, dx = offsets[index]
            rows = self._dataset.rows[index]
            block_gradient = roll(found, -dy, -dx)
            block_gradient = block_gradient.reshape(len(rows), *gradient.shape[1:])
            gradient.index_add_(0, rows, block_gradient, alpha=factor)
        return gradient, dict(zip(TERMS, terms.mean(0), strict=True))

    def _block(self, index: int, dy: int, dx: int) -> Tensor:
        """Return one teacher's rolled images (n_i · M, 3, H, W), without graph."""
        return roll(self._dataset.teacher_batch(index)[0].detach(), dy, dx)

    def _begin(self, chosen: list[int], blocks: list[Tensor]) -> TeacherGradients:
        """Take a backend, unless a saved state has said which, and note its name."""
        self.backend = self.backend or chosen_backend(self._offered)
        self._note_backend(self._subject(chosen, blocks), self.backend)
        return self._offered[self.backend]()

    def _subject(self, chosen: list[int], blocks: list[Tensor]) -> str:
        """Return the work in words: teachers and the images of their blocks."""
        specs = [self._pool[index].spec for index in chosen]
        kinds = sorted({spec.architecture for spec in specs})
        counts = [f"{sum(s.architecture == k for s in specs)} {k}" for k in kinds]
        images = max(len(block) for block in blocks)
        return f"inversion: {' + '.join(counts)}, {images} images, {specs[0].image_size} px"

    def factors(self, n: int) -> list[int]:
        """Return the weights of a step's n teachers, in their order."""
        return [n - i if self._teacher_weights == "cumulative" else 1 for i in range(n)]

    def _offsets(self) -> list[list[int]]:
        """Draw a shift (dy, dx) for every teacher of the pool, whichever the step takes."""
        size = (len(self._pool), 2)
        draw = torch.randint(-self._jitter, self._jitter + 1, size, generator=self._generator)
        return draw.tolist()

    def apply(self, gradient: Tensor) -> None:
        """Take one Adam step along a gradient of the images; clip the pixels if configured."""
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
            "backend": self.backend,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned; a backend that is not offered is chosen anew.

        A CPU and a GPU offer different ones, and a state may go from one to the other.
        """
        self._dataset.images.copy_(state["images"])
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self._generator.set_state(state["jitter"].cpu())
        backend = state["backend"] if state["backend"] in self._offered else None
        if backend != self.backend:
            self.backend, self.gradients = backend, None
