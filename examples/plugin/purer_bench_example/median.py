"""A method: the median of the teachers' weights."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Config, FitContext, Method


class MedianConfig(Config):
    """Which teachers count."""

    min_accuracy: float = Field(default=0.0, ge=0, le=1)
    """held-out accuracy below which a teacher is left out. Unit: fraction. Source: ours"""


class Median(Method[MedianConfig]):
    """Coordinate-wise median of all teachers' weights, heads included, as initialisation.

    Source: an example without a published counterpart.
    """

    name = "median"
    knowledge = "parameters"
    needs = frozenset({"same_architecture"})
    fit_depends_on = frozenset({"n_way"})
    Config = MedianConfig

    def skip(self, context: FitContext[MedianConfig]) -> str | None:
        """Skip pools whose networks are not the meta-model's."""
        if any(teacher.spec != context.net for teacher in context.pool):
            return f"needs teachers of the meta-model's shape, {context.net}"
        return None

    def fit(self, context: FitContext[MedianConfig]) -> dict[str, Tensor]:
        """Return the state dict of the medians."""
        kept = [t for t in context.pool if t.accuracy >= context.config.min_accuracy]
        if len(kept) < len(context.pool):
            context.log.note(f"the median of {len(kept)} of {len(context.pool)} teachers")
        states = [teacher.net.state_dict() for teacher in kept or context.pool]
        return {
            name: torch.stack([state[name] for state in states]).median(dim=0).values
            for name in states[0]
        }
