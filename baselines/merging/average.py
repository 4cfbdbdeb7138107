"""The mean of the teachers' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines.merging._merging import Merge, MergeConfig, states_of
from bench.contract import FitContext, Teacher
from bench.training.initialisation import average_state

if TYPE_CHECKING:
    from torch import Tensor


class Average(Merge[MergeConfig]):
    """Mean of all teachers' weights, BN statistics included, as initialisation.

    A baseline of Hu et al., "Architecture, Dataset and Model-Scale Agnostic Data-free
    Meta-Learning", CVPR 2023, arXiv 2303.11183, whose released scripts also start meta-training
    from it. Head policies other than `average`, and the largest group of a mixed pool, are ours.
    """

    name = "average"

    def merge(
        self, context: FitContext[MergeConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Return the mean state."""
        return average_state(states_of(teachers, context.config.head))
