"""The gradient switch: when the accuracy on pseudo tasks stops rising, make them harder.

Pure state machines. Source: the paper's episode curriculum; the rules and constants are those of
the released code.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Switch(Protocol):
    """Decides which pixel steps are adversarial.

    Call `take()` before one, and `observe()` after the meta step of the same meta-iteration.
    """

    @property
    @abstractmethod
    def armed(self) -> bool:
        """Whether the next pixel step will be adversarial."""

    @abstractmethod
    def take(self) -> bool:
        """Return whether this meta-iteration's pixel step is adversarial, and disarm."""

    def observe(self, iteration: int, accuracy: float | Tensor) -> None:
        """Take note of the mean pseudo-query accuracy of a meta step."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""


class GradientSwitch:
    """Decides which pixel steps are adversarial, from the accuracies of the meta steps.

    In each meta-iteration, call `take()` before the pixel step and `observe()` after the meta
    step. The switch arms itself for the next iteration at `start`, and from then on whenever
    `patience` accuracies in a row did not exceed the best one since it was armed last.

    Args:
        start: meta-iteration (from 1) that arms the switch first.
        patience: accuracies without improvement that arm it again.
    """

    def __init__(self, start: int, patience: int) -> None:
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


class NoSwitch:
    """A switch that never arms itself: no pixel step is adversarial."""

    armed = False

    def take(self) -> bool:
        """Return False."""
        return False

    def observe(self, iteration: int, accuracy: float | Tensor) -> None:
        """Take no note."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue; there is no state."""


class RandomSwitch:
    """Arms itself at random meta-iterations, whatever the accuracies are.

    Ours: the control that tells how much of the curriculum's worth is the timing of the switch.

    Args:
        start: first meta-iteration (from 1) that may arm it, as in `GradientSwitch`.
        total: meta-iterations of the run; the last one cannot arm it.
        count: adversarial pixel steps of the whole run, at most total - start.
        generator: CPU generator of the times.
    """

    def __init__(self, start: int, total: int, count: int, generator: torch.Generator) -> None:
        times = torch.randperm(max(0, total - start), generator=generator)[:count]
        self._times = frozenset((times + start).tolist())
        self._armed = False

    @property
    def armed(self) -> bool:
        """Whether the next pixel step will be adversarial."""
        return self._armed

    def take(self) -> bool:
        """Return whether this meta-iteration's pixel step is adversarial, and disarm."""
        armed, self._armed = self._armed, False
        return armed

    def observe(self, iteration: int, accuracy: float | Tensor) -> None:
        """Arm for the next meta-iteration where this one is among the random ones."""
        self._armed = iteration in self._times

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue; the times follow from the generator."""
        return {"armed": self._armed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._armed = bool(state["armed"])
