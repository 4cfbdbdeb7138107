"""Calibrations: refine a learner on each test task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Generic

from bench.contract.config import Config, ConfigT
from bench.contract.learners import Learner

if TYPE_CHECKING:
    import torch


class Calibration(ABC, Generic[ConfigT]):
    """Turns a learner into one that refines itself on each test task; not part of a fit.

    One subclass, one entry point of the group `purer_bench.calibrations`. Fits and validation
    know nothing of it, so cells with and without it share them.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """raised when a change of the code changes its predictions; see `Method.version`"""
    transductive: ClassVar[bool] = False
    """whether it uses the queries of a task together; see `Learner.transductive`"""
    Config: ClassVar[type[Config]] = Config

    @classmethod
    @abstractmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Return why a kind of learner cannot be calibrated, with the remedy, or None."""

    @abstractmethod
    def wrap(
        self, learner: Learner, config: ConfigT, generator: Callable[[int], torch.Generator]
    ) -> Learner:
        """Return the calibrated learner; draws nothing yet.

        Args:
            learner: with the test settings; never changed.
            config: an instance of `Config`.
            generator: returns the CPU generator of a test task, by its place in the list.
        """
