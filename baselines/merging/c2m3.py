"""C2M3: match the channels of all teachers at once through a common order, then average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from baselines.merging._channels import State, permute
from baselines.merging._matched import MatchedConfig, MatchedMerge
from baselines.merging._universe import universe_match
from bench.contract import FitContext
from bench.nets.channels import Axis

if TYPE_CHECKING:
    from torch import Tensor


class C2M3Config(MatchedConfig):
    """Limits of the search."""

    max_steps: int = Field(200, ge=0)
    """steps of Frank and Wolfe's algorithm at most. Source: the released code."""
    patience: int = Field(5, ge=1)
    """the search ends after so many steps in a row that gain less than a millionth. Source: the
    released code."""


class C2M3(MatchedMerge[C2M3Config]):
    """Cycle-consistent matching of all teachers through one universe, then the mean.

    Crisostomi, Fumero, Baieri, Bernard and Rodolà, "C²M³: Cycle-Consistent Multi-Model Merging",
    NeurIPS 2024, arXiv 2405.17897. The permutations of all teachers and layers are searched for
    together: Frank and Wolfe's algorithm on the summed agreement of all pairs, each network mapped
    to one common order (the universe), so that no teacher is the reference and their order does
    not matter. Start: the identity.

    Departures: heads are permuted with the channels that they read but do not enter the match,
    because their rows are different classes; batch norm's scale and shift enter it; running
    statistics are only permuted, and not estimated anew (the paper's REPAIR), because gradient and
    metric learners use the batch's own.
    """

    name = "c2m3"
    Config = C2M3Config

    def align(
        self,
        context: FitContext[C2M3Config],
        states: Sequence[State],
        axes: tuple[Axis, ...],
        reference: int,
    ) -> list[dict[str, Tensor]]:
        """Permute each teacher to the universe; the log gets the agreement after each step."""
        config = context.config
        found, agreements = universe_match(states, axes, config.max_steps, config.patience)
        for step, agreement in enumerate(agreements):
            context.log.scalars(step, {"agreement": agreement})
        return [permute(state, axes, one) for state, one in zip(states, found, strict=True)]
