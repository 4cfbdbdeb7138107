"""What fits on pseudo images share: the teachers' inversion, then one network after another.

A fit may be interrupted after any step of an inversion or of a network; what is saved there, and
the streams' states, let it go on bit by bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from baselines.distillation._pseudo_views import (
    PseudoImageSettings,
    TeacherInversions,
    show,
)
from bench.contract import Backbone, FitContext, Teacher
from bench.training.initialisation import zero_head

State = dict[str, Tensor]
SettingsT = TypeVar("SettingsT", bound=PseudoImageSettings)


class Trainer(Protocol):
    """Trains one network; its state lets it go on from any step."""

    def run(self, note: Callable[[int], None], offer: Callable[[int], None]) -> None:
        """Take the steps that are left; `note` and `offer` get the number of steps done."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class NetworkTraining(ABC, Generic[SettingsT]):
    """Makes the pseudo images and trains one network after another; goes on from any step.

    Args:
        context: what the method was given.
        teachers: the teachers, each of which is inverted.
        n_networks: how many networks are trained.
        n_steps: the steps of each.

    Attributes:
        images: the pseudo images of each teacher, once it runs.
    """

    def __init__(
        self,
        context: FitContext[SettingsT],
        teachers: Sequence[Teacher],
        n_networks: int,
        n_steps: int,
    ) -> None:
        self.context, self.teachers = context, teachers
        self.n_networks, self.n_steps = n_networks, n_steps
        self.images: Sequence[Tensor] = []
        generator = context.generator("pseudo images")
        self._inversions = TeacherInversions(context, teachers, generator)
        self._finished: list[State] = []
        self._current: dict[str, Any] | None = None
        if context.resume is not None:
            self._restore(context.resume)

    @abstractmethod
    def start(self, number: int, first: int) -> tuple[Backbone, Trainer]:
        """Return a network at its start and what trains it.

        Args:
            number: of the network, from 0.
            first: the steps of the fit before it.
        """

    def run(self) -> list[State]:
        """Return the state of each network, its head at zero."""
        self.images = self._inversions.run(self._note, lambda step: self._offer(step, lambda: None))
        for teacher, own in zip(self.teachers, self.images, strict=True):
            show(self.context.log, teacher, own)
        for number in range(len(self._finished), self.n_networks):
            self._finished.append(self._train(number))
            self._current = None
        return self._finished

    def _train(self, number: int) -> State:
        first = self._done(number)
        net, trainer = self.start(number, first)
        if self._current is not None:
            trainer.load_state_dict(self._current)
        trainer.run(
            lambda step: self._note(first + step),
            lambda step: self._offer(first + step, trainer.state_dict),
        )
        zero_head(net)
        return state_of(net)

    def _done(self, number: int) -> int:
        """Return the steps of all before a network."""
        inversions = len(self.teachers) * self.context.config.inversion_steps
        return inversions + number * self.n_steps

    def _note(self, step: int) -> None:
        self.context.log.progress(step, self._done(self.n_networks))

    def _offer(self, step: int, network: Callable[[], dict[str, Any] | None]) -> None:
        """Offer a checkpoint: pseudo images, finished networks, and the one under way."""
        self.context.checkpoint(
            step,
            lambda: {
                "inversions": self._inversions.state_dict(),
                "finished": self._finished,
                "current": network(),
            },
        )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._inversions.load_state_dict(saved["inversions"])
        self._finished, self._current = list(saved["finished"]), saved["current"]


def state_of(net: Backbone) -> State:
    """Return copies of a net's parameters and buffers."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
