"""Methods turn a pool into a learner; `FitContext` is what they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol

from bench.contract.config import BnMode, Budget, Config, ConfigT, ConfigT_co, ProtocolConstants
from bench.contract.learners import Learner, MetaLearner, TaskBatch, TaskShape
from bench.contract.pools import Backbone, NetSpec, Pool, Teacher
from bench.errors import BenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Knowledge = Literal["parameters", "inversion", "features", "real_data"]
Need = Literal["same_architecture", "shared_initialisation", "bn_statistics"]
OLD_ATTRIBUTES = {"fit_passes", "kept_passes", "embedding_passes", "learners"}
"""What methods declared in the version before this one."""


class FitLog(Protocol):
    """Receives what a fit reports, for the record and the display; never synchronises a device."""

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Note named scalars (floats or 0-d tensors) of one step."""

    def images(
        self, name: str, images: Tensor, captions: Sequence[str] = (), columns: int | None = None
    ) -> None:
        """Note a grid of images (N, 3, H, W) with values in [0, 1].

        Captions, where given, each name a group of consecutive images, all groups equally large.
        `columns` groups stand in a row; None makes the grid about square.
        """

    def count(self, name: str, amount: int) -> None:
        """Add to a counter: `train_tasks`, `pseudo_images`, `teacher_forward_images`, `queries`."""

    def note(self, text: str) -> None:
        """Add a sentence to the record's warnings; equal sentences are kept once."""

    def extra(self, name: str, value: object) -> None:
        """Store a value that JSON can hold in the record, as `extra[name]`.

        A later value of the same name replaces it; what changes over steps belongs into `scalars`.

        Raises:
            BenchError: JSON cannot hold the value.
        """

    def backend(self, part: str, name: str) -> None:
        """Record which of several equivalent backends computes a part of the fit.

        They differ in speed and rounding; the record's `fit.strategies` keeps the name.
        """

    def progress(self, step: int, total: int) -> None:
        """Report that `step` of `total` steps are done."""


class MakeLearner(Protocol):
    """Wraps weights of the meta-model in the cell's learner."""

    @abstractmethod
    def __call__(self, state: Mapping[str, Tensor], bn: BnMode | None = None) -> Learner:
        """Return the learner with the test settings.

        Args:
            state: a complete state dict of the meta-model.
            bn: the mode of batch norm in place of the protocol's.
        """


class OtherFit(Protocol):
    """Fits another method to the same pool, or finds its stored fit."""

    @abstractmethod
    def __call__(self, method: str, preset: str = "released") -> Mapping[str, Tensor]:
        """Return what the method's `fit` returns, on the CPU.

        Args:
            method: a registered method, which is combined with its default learner.
            preset: of its configuration.
        """


def no_other_fit(method: str, preset: str = "released") -> Mapping[str, Tensor]:
    """Serve a context that is not of the harness, where there are no other fits.

    Raises:
        BenchError: always.
    """
    raise BenchError(
        f"this context offers no fit of '{method} ({preset})' to start from; give "
        "`FitContext.other_fit` a function that does"
    )


@dataclass
class FitContext(Generic[ConfigT_co]):
    """Everything that a method is given. It sees no data set, no file, no test task.

    `generator(purpose)` returns an independent CPU generator of its own stream.
    `build_net(generator)` returns a fresh meta-model of the spec `net`, on the device.
    `training_learner(net)` wraps a meta-model in the cell's learner with the protocol's training
    settings (a `MetaLearner`); `make_learner(state)` wraps a state dict of the meta-model in the
    cell's learner with the test settings. `learner_class` is the class that the name `learner` is
    registered for. `validate(learner)` returns the mean accuracy on
    validation tasks; None where the protocol takes the last state. `train_tasks(generator, n)`
    draws real tasks of the meta-train split; None unless the method's knowledge is `real_data`.
    `other_fit(method)` returns the fit of another method to the same pool, under the cell's
    protocol, budget and seed: stored and shared as every fit, its time not counted in this one's.
    The setting `other_fit` of the method's configuration names it, so that its code counts, too.

    A long fit calls `checkpoint` after each step. `save(step, state)` writes a state at once,
    whether or not it is time; `due()` tells whether it is. `resume` is the state that was written
    last, or None; states are nested dicts, lists, numbers, strings and tensors.
    """

    pool: Pool
    net: NetSpec
    shape: TaskShape
    learner: str
    learner_class: type[Learner]
    config: ConfigT_co
    budget: Budget
    protocol: ProtocolConstants
    device: torch.device
    log: FitLog
    generator: Callable[[str], torch.Generator]
    build_net: Callable[[torch.Generator], Backbone]
    training_learner: Callable[[Backbone], MetaLearner]
    make_learner: MakeLearner
    validate: Callable[[Learner], float] | None
    resume: dict[str, Any] | None
    save: Callable[[int, dict[str, Any]], None]
    train_tasks: Callable[[torch.Generator, int], TaskBatch] | None
    due: Callable[[], bool] = lambda: True
    other_fit: OtherFit = no_other_fit

    def checkpoint(self, step: int, make_state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint where it is time for one, or where the user has asked for the end.

        In the latter case the call does not return: what it raises is no `Exception`, and ends the
        fit, which goes on from this state when the same command is run again.

        Args:
            step: how far the fit is.
            make_state: returns all that is needed to go on bit by bit; called only when it is time.
        """
        if self.due():
            self.save(step, make_state())


class Method(ABC, Generic[ConfigT]):
    """Turns a pool into a learner. One subclass, one file, one entry point per method.

    A fit is a dict of tensors, apart from the learner that is built from it, so that the harness
    can store it, share it between cells (`fit_depends_on`) and restore it without the method's
    help.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when a change of the code changes what comes of the same configuration. From 2 on it
    is part of the identity of cells and fits, which then stand beside the earlier ones."""
    knowledge: ClassVar[Knowledge]
    learner_needs: ClassVar[type[Learner]] = Learner
    """What the cell's learner must be a subclass of; every registered one that is serves."""
    default_learner: ClassVar[str] = "maml"
    """The learner's registered name where a suite names none."""
    own_learner: ClassVar[bool] = False
    """Whether `learner` builds one of the method's own; the cell's is then `default_learner`."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    fit_depends_on: ClassVar[frozenset[str]] = frozenset()
    """Which of n_way, k_shot, learner change the fit; cells that agree in them share one."""
    uses_pool: ClassVar[bool] = True
    validates: ClassVar[bool] = False
    """Whether the fit selects a checkpoint through `context.validate`."""
    Config: ClassVar[type[Config]] = Config
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"released": {}}
    learner_presets: ClassVar[Mapping[tuple[str, type[Learner]], Mapping[str, Any]]] = {}
    """What a preset is with learners of one class, where it is not as in `presets`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take what methods declared before, among it a tuple `learners` of registered names."""
        super().__init_subclass__(**kwargs)
        if vars(cls).keys() & OLD_ATTRIBUTES:
            from bench.contract.deprecated import warn_once

            warn_once()
        if names := vars(cls).get("learners"):
            cls.default_learner = names[0]

    @classmethod
    def refuse_learner(cls, name: str, learner: type[Learner]) -> str | None:
        """Return why the method cannot be combined with a registered learner, or None."""
        listed = getattr(cls, "learners", (name,))
        if name not in listed:
            return f"the method lists {', '.join(listed)}"
        if cls.own_learner and name != cls.default_learner:
            return "the method builds a learner of its own"
        if issubclass(learner, cls.learner_needs):
            return None
        return f"the method needs a {cls.learner_needs.__name__}"

    @classmethod
    def preset_values(cls, preset: str, learner: type[Learner]) -> Mapping[str, Any]:
        """Return what a preset sets where the method is combined with a class of learners."""
        for (name, kind), values in cls.learner_presets.items():
            if name == preset and issubclass(learner, kind):
                return values
        return cls.presets[preset]

    @classmethod
    def needs_of(cls, config: ConfigT) -> frozenset[Need]:
        """Return what the method needs under a configuration."""
        return cls.needs

    @classmethod
    def knowledge_of(cls, config: ConfigT) -> Knowledge:
        """Return the kind of knowledge that the method uses under a configuration."""
        return cls.knowledge

    @classmethod
    def bn_of(cls, config: ConfigT, learner: type[Learner], protocol: ProtocolConstants) -> BnMode:
        """Return how batch norm normalises at prediction: as the protocol says, or otherwise.

        A method that asks `make_learner` for another mode, or builds a learner of its own, says
        so here; `transductive` makes its rows transductive in records and tables.
        """
        return protocol.bn

    @classmethod
    def in_force(
        cls, config: ConfigT, shape: TaskShape, budget: Budget, protocol: ProtocolConstants
    ) -> Mapping[str, Any]:
        """Return the values of settings that a fit replaces by what it derives, for `bench show`.

        A setting that is None and has the name of a constant of the protocol or a count of the
        budget means that one, and need not be named here.
        """
        return {}

    def teachers_used(self, context: FitContext[ConfigT]) -> Sequence[Teacher]:
        """Return the teachers that a fit uses, of whom alone `bn_statistics` are needed."""
        return tuple(context.pool)

    def skip(self, context: FitContext[ConfigT]) -> str | None:
        """Return why the method cannot use this pool or task shape, or None; beyond `needs`."""
        return None

    def notes(self, context: FitContext[ConfigT]) -> tuple[str, ...]:
        """Return notes for the record's warnings about a fit to this pool."""
        return ()

    @abstractmethod
    def fit(self, context: FitContext[ConfigT]) -> dict[str, Tensor]:
        """Turn the pool into tensors; only this call is timed as the fit.

        Raises:
            Skip: the method finds now that it cannot serve the cell.
        """

    def learner(self, context: FitContext[ConfigT], fitted: Mapping[str, Tensor]) -> Learner:
        """Build the learner from what `fit` returned; fast, without random numbers.

        Unless a method says otherwise, that is the cell's learner around a meta-model of these
        weights.
        """
        return context.make_learner(fitted)
