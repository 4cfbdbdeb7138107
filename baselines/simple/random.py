"""Random weights: the lower reference of every table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contract import FitContext, Method
from bench.training.initialisation import initial_net

if TYPE_CHECKING:
    from torch import Tensor


class Random(Method):
    """Newly drawn weights; uses no teacher.

    The usual lower reference of data-free meta-learning, as in Wang et al., "Meta-Learning without
    Data via Wasserstein Distributionally-Robust Model Fusion", UAI 2022. Every learner of the suite
    may start from it.
    """

    name = "random"
    knowledge = "parameters"
    fit_depends_on = frozenset({"n_way"})
    uses_pool = False

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Return newly drawn weights."""
        return dict(initial_net(context, "random").state_dict())
