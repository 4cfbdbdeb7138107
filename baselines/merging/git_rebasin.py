"""Git Re-Basin: permute the channels of all teachers so that their weights agree, then average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._channels import State, permute
from baselines.merging._matched import MatchedConfig, MatchedMerge
from baselines.merging._matching import identity, inner_products, layerwise_match, weight_match
from bench.contract import FitContext
from bench.nets.channels import Axis
from bench.training.initialisation import average_state


class GitRebasinConfig(MatchedConfig):
    """Limits of the search for matches."""

    max_sweeps: int = Field(100, ge=1)
    """sweeps over all channel groups in one match at most; a match ends by itself before. Ours."""
    max_rounds: int = Field(20, ge=1)
    """rounds of matching each teacher to the mean of the others at most; ends by itself when
    nothing moves any more. Ours."""


class GitRebasin(MatchedMerge[GitRebasinConfig]):
    """Weight matching by coordinate descent over linear assignments, then the mean.

    Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries",
    ICLR 2023, arXiv 2209.04836: algorithm 1 (a match) and algorithm 3 (MergeMany).

    Departures: every teacher is first matched to the most accurate one, layer by layer from the
    input, because between independent networks the identity is no meaningful start; a group is
    permuted only if its match improves. The heads are permuted with the channels that they read but
    do not enter the match, because their rows are different classes. Scale and shift of batch norm
    enter the match; its running statistics are only permuted. Gradient and metric learners use the
    batch's own statistics, so none are estimated anew.
    """

    name = "git_rebasin"
    Config = GitRebasinConfig

    def align(
        self,
        context: FitContext[GitRebasinConfig],
        states: Sequence[State],
        axes: tuple[Axis, ...],
        reference: int,
    ) -> list[dict[str, Tensor]]:
        """Match each teacher to the reference, then to the mean of the others."""
        config, generator = context.config, context.generator("order")
        return match_many(states, axes, reference, generator, config.max_sweeps, config.max_rounds)


def match_many(
    states: Sequence[State],
    axes: tuple[Axis, ...],
    reference: int,
    generator: torch.Generator,
    max_sweeps: int,
    max_rounds: int,
) -> list[dict[str, Tensor]]:
    """Return states whose channels are permuted to match one another.

    Args:
        states: N states of one architecture.
        axes: the channel axes.
        reference: number of the state that the others are matched to first.
        generator: CPU generator of the order of groups and states.
        max_sweeps: see `GitRebasinConfig`.
        max_rounds: likewise.

    Returns:
        N states in their order; each describes the same function as before.
    """
    aligned = [dict(state) for state in states]
    for index, state in enumerate(states):
        if index != reference:
            start = layerwise_match(states[reference], state, axes, inner_products)
            found = weight_match(states[reference], state, axes, start, generator, max_sweeps)
            aligned[index] = permute(state, axes, found)
    for _ in range(max_rounds if len(states) > 2 else 0):
        moved = False
        for index in torch.randperm(len(states), generator=generator).tolist():
            others = average_state(aligned[:index] + aligned[index + 1 :])
            still = identity(others, axes)
            found = weight_match(others, aligned[index], axes, still, generator, max_sweeps)
            if any(not torch.equal(found[group], still[group]) for group in still):
                aligned[index], moved = permute(aligned[index], axes, found), True
        if not moved:
            break
    return aligned
