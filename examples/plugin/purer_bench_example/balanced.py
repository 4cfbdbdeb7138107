"""A calibration: equally many queries per class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Calibration, Config, Learner


class BalancedConfig(Config):
    """How far the prediction is moved."""

    strength: float = Field(default=1.0, ge=0, le=1)
    """share of the log of each class's mean probability that is taken off the logits"""


class Balanced(Calibration[BalancedConfig]):
    """Takes off the logits what a task's queries predict of each class on average.

    The test tasks have equally many queries per class; a learner that prefers a class is corrected.
    It looks at all queries of a task together, so it is transductive.
    """

    name = "balanced"
    transductive = True
    Config = BalancedConfig

    @classmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Serve every learner."""
        return None

    def wrap(
        self,
        learner: Learner,
        config: BalancedConfig,
        generator: Callable[[int], torch.Generator],
    ) -> Learner:
        """Return the calibrated learner; it draws nothing."""
        return BalancedLearner(learner, config.strength)


class BalancedLearner(Learner):
    """A learner whose logits are corrected task by task."""

    def __init__(self, learner: Learner, strength: float) -> None:
        self._learner, self._strength = learner, strength

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self._learner.n_parameters

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return logits (T, Q, n_way); see `Learner.predict`."""
        logits = self._learner.predict(support_x, support_y, query_x)
        return logits - self._strength * logits.softmax(-1).mean(1, keepdim=True).log()
