"""The teachers of a pixel step: all of them, or some drawn anew for each step."""

from __future__ import annotations

import torch


class TeacherDraw:
    """Draws the teachers of each pixel step without replacement, all equally likely.

    Args:
        n_teachers: teachers of the pool.
        per_step: how many a step takes; None, or no fewer than there are, takes all, in the pool's
            order and without a draw.
        generator: CPU generator, a stream of its own.

    Source: the paper's later extension draws 13 of its 100 teachers in each meta-iteration.
    """

    def __init__(self, n_teachers: int, per_step: int | None, generator: torch.Generator) -> None:
        self._n_teachers, self._generator = n_teachers, generator
        self._per_step = n_teachers if per_step is None else min(per_step, n_teachers)

    def __call__(self) -> list[int]:
        """Return the numbers of the next step's teachers."""
        if self._per_step == self._n_teachers:
            return list(range(self._n_teachers))
        order = torch.randperm(self._n_teachers, generator=self._generator)
        return order[: self._per_step].tolist()

    def get_state(self) -> torch.Tensor:
        """Return the stream's state."""
        return self._generator.get_state()

    def set_state(self, state: torch.Tensor) -> None:
        """Continue from what `get_state` returned."""
        self._generator.set_state(state.cpu())
