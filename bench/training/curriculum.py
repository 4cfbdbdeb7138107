"""The gradient switch: when the meta-model stops improving on the pseudo tasks, make them harder.

A pure state machine. Source: the paper's episode curriculum; the rules and constants are those of
the released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class GradientSwitch:
    """Decides which pixel steps are adversarial, from the accuracies of the meta steps.

    In each meta-iteration, call `take()` before the pixel step and `observe()` after the meta
    step. The switch arms itself for the next iteration at `start`, and from then on whenever
    `patience` accuracies in a row did not exceed the best one since it was armed last.

    Args:
        start: meta-iteration (from 1) that arms the switch first.
        patience: accuracies without improvement that arm it again.
    """

    def __init__(self, start: int, patience: int):
        self.start = start
        self.patience = patience
        self._armed = False
        self._best: float | None = None
        self._counter = 0

    @property
    def armed(self) -> bool:
        """Whether the next pixel step will be adversarial."""
        return self._armed

    def take(self) -> bool:
        """Return whether this iteration's pixel step is adversarial, and disarm."""
        armed, self._armed = self._armed, False
        return armed

    def observe(self, iteration: int, accuracy: float | Tensor) -> None:
        """Take note of a meta step's mean pseudo-query accuracy; any unit, but always the same.

        An adversarial iteration's own accuracy counts. A tensor is read after `start` only.
        """
        if iteration == self.start:
            self._armed = True
        elif iteration > self.start and not self._armed:
            self._compare(float(accuracy))

    def _compare(self, accuracy: float) -> None:
        if self._best is None or accuracy > self._best:
            self._best, self._counter = accuracy, 0
            return
        self._counter += 1
        if self._counter == self.patience:
            self._armed, self._best, self._counter = True, None, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue: armed, best accuracy or None, counter."""
        return {"armed": self._armed, "best": self._best, "counter": self._counter}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._armed, self._best = bool(state["armed"]), state["best"]
        self._counter = int(state["counter"])
