"""Git Re-Basin: permute the channels of all teachers so that their weights agree, then average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._barrier import measure_barriers
from baselines.merging._channels import State, channel_axes, permute, present
from baselines.merging._matching import identity, inner_products, layerwise_match, weight_match
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import FitContext, Need, Teacher, added
from bench.nets.channels import Axis
from bench.training.initialisation import average_state


class GitRebasinConfig(MergeConfig):
    """Limits of the search for matches, and whether the loss barrier is measured."""

    max_sweeps: int = Field(100, ge=1)
    """sweeps over all channel groups in one match at most; a match ends by itself before. Ours."""
    max_rounds: int = Field(20, ge=1)
    """rounds of matching each teacher to the mean of the others at most; ends by itself when
    nothing moves any more. Ours."""
    measure_barrier: bool = added(False)
    """whether the log gets the loss between teachers, with and without the match, on pseudo images
    that are inverted for it; the fit is the same. See `baselines/merging/_barrier.py`"""


class GitRebasin(Merge[GitRebasinConfig]):
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

    @classmethod
    def needs_of(cls, config: GitRebasinConfig) -> frozenset[Need]:
        """Pseudo images for the barrier ask for batch norm statistics."""
        extra: frozenset[Need] = frozenset({"bn_statistics"} if config.measure_barrier else ())
        return super().needs_of(config) | extra

    def merge(
        self, context: FitContext[GitRebasinConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Match the teachers and average them."""
        measured = context.config.measure_barrier and len(teachers) > 1
        states = states_of(teachers, "average" if measured else context.config.head)
        axes = present(states[0], channel_axes(teachers[0]))
        best = max(range(len(teachers)), key=lambda i: teachers[i].accuracy)
        aligned = match_many(
            states,
            axes,
            best,
            context.generator("order"),
            context.config.max_sweeps,
            context.config.max_rounds,
        )
        if measured:
            images = invert_teachers(context, teachers, InversionSettings())
            kinds = {"unmatched": states, "matched": aligned}
            measure_barriers(context.log, teachers[0].net, kinds, images, best)
        return average_state(aligned)


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
