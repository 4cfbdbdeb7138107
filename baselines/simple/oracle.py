"""Oracles: the same learners, meta-trained on the real images; never ranked as data-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.contract import (
    Budget,
    Config,
    FitContext,
    InnerLoopLearner,
    Method,
    MetricLearner,
    ProtocolConstants,
    TaskBatch,
    TaskShape,
)
from bench.training.initialisation import initial_net
from bench.training.meta_training import meta_train

if TYPE_CHECKING:
    from torch import Tensor


class OracleConfig(Config):
    """How long and how fast to train; None takes what the budget or the protocol says."""

    meta_iterations: int | None = Field(None, ge=1)
    """outer steps; None: the budget's `oracle_iterations`"""
    outer_lr: float | None = Field(None, gt=0)
    """Adam's rate; None: the protocol's"""

    def total_iterations(self, budget: Budget) -> int:
        """Return the number of meta-iterations: its own, or the budget's for oracles."""
        return self.meta_iterations or budget.oracle_iterations


class RealTasks:
    """A task source that draws from the meta-train split.

    Args:
        context: gives the tasks, the random stream `real tasks`, and tasks a meta-iteration.
    """

    def __init__(self, context: FitContext) -> None:
        assert context.train_tasks is not None, "oracles are given real tasks"
        self._draw = context.train_tasks
        self._generator = context.generator("real tasks")
        self._n_tasks = context.protocol.tasks_per_meta_batch

    def next_tasks(self, iteration: int) -> TaskBatch:
        """Return newly drawn tasks."""
        return self._draw(self._generator, self._n_tasks)

    def observe(self, iteration: int, accuracy: float) -> None:
        """Do nothing: the tasks do not depend on the accuracy."""

    def watched(self) -> dict[str, Tensor]:
        """Return nothing: no value here can stop being finite."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the stream's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._generator.set_state(state["generator"].cpu())


class _Oracle(Method[OracleConfig]):
    knowledge = "real_data"
    fit_depends_on = frozenset({"n_way", "k_shot", "learner"})
    uses_pool = False
    validates = True
    Config = OracleConfig

    @classmethod
    def in_force(
        cls,
        config: OracleConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the number of meta-iterations: an oracle's budget is its own."""
        return {"meta_iterations": config.total_iterations(budget)}

    def fit(self, context: FitContext[OracleConfig]) -> dict[str, Tensor]:
        """Meta-train on real tasks, from random weights."""
        context = _with_overrides(context)
        return meta_train(context, initial_net(context, "random"), RealTasks(context))


class OracleMaml(_Oracle):
    """MAML meta-trained on the real images, with the steps and rates of the data-free methods.

    Finn et al., ICML 2017 (see `bench.learners.maml.Maml`). Departures: one inner step in the
    default protocol, and its budget instead of 60,000 iterations.
    """

    name = "oracle_maml"
    learner_needs = InnerLoopLearner


class OracleProtonet(_Oracle):
    """Prototypical network meta-trained on the real images.

    Snell et al., NeurIPS 2017 (see `bench.learners.protonet.ProtoNet`). Departures: trained with
    the ways of the test tasks, not more; Adam at the protocol's rate, without decay.
    """

    name = "oracle_protonet"
    learner_needs = MetricLearner
    default_learner = "protonet"


def _with_overrides(context: FitContext[OracleConfig]) -> FitContext[OracleConfig]:
    """Return the context with the config's own numbers in its budget and protocol."""
    protocol = context.protocol
    steps = context.config.total_iterations(context.budget)
    budget = context.budget.model_copy(update={"meta_iterations": steps})
    if context.config.outer_lr is not None:
        protocol = protocol.model_copy(update={"outer_lr": context.config.outer_lr})
    return replace(context, budget=budget, protocol=protocol)
