"""Merges that permute channels so that teachers agree, then average; with the loss barrier."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from baselines.merging._barrier import measure_barriers
from baselines.merging._channels import State, channel_axes, present
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import FitContext, Need, Teacher, added
from bench.nets.channels import Axis
from bench.training.initialisation import average_state

if TYPE_CHECKING:
    from torch import Tensor


class MatchedConfig(MergeConfig):
    """Whether the loss barrier is measured."""

    measure_barrier: bool = added(False)
    """whether the log gets the loss between teachers, with and without the match, on pseudo images
    that are inverted for it; the fit is the same. See `baselines/merging/_barrier.py`"""


MatchedT = TypeVar("MatchedT", bound=MatchedConfig)


class MatchedMerge(Merge[MatchedT]):
    """A merge of states whose channels were permuted to agree."""

    Config = MatchedConfig

    @abstractmethod
    def align(
        self,
        context: FitContext[MatchedT],
        states: Sequence[State],
        axes: tuple[Axis, ...],
        reference: int,
    ) -> Sequence[Mapping[str, Tensor]]:
        """Return states whose channels are permuted to agree; each is the same function as before.

        Args:
            context: what the method was given.
            states: of all teachers.
            axes: the channel axes.
            reference: number of the most accurate teacher.
        """

    @classmethod
    def needs_of(cls, config: MatchedT) -> frozenset[Need]:
        """Pseudo images for the barrier ask for batch norm statistics."""
        extra: frozenset[Need] = frozenset({"bn_statistics"} if config.measure_barrier else ())
        return super().needs_of(config) | extra

    def merge(
        self, context: FitContext[MatchedT], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Match the teachers and average them."""
        measured = context.config.measure_barrier and len(teachers) > 1
        states = states_of(teachers, "average" if measured else context.config.head)
        axes = present(states[0], channel_axes(teachers[0]))
        best = max(range(len(teachers)), key=lambda i: teachers[i].accuracy)
        aligned = self.align(context, states, axes, best)
        if measured:
            images = invert_teachers(context, teachers, InversionSettings())
            kinds = {"unmatched": states, "matched": aligned}
            measure_barriers(context.log, teachers[0].net, kinds, images, best)
        return average_state(aligned)
