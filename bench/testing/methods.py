"""Checks of methods, on two tiny pools."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.contract import FitContext, Learner, Method, NetSpec, Pool, TaskBatch, TaskShape
from bench.errors import Skip
from bench.suites.expand import serving_learners
from bench.suites.suite import validated
from bench.testing.checks import Check, require
from bench.testing.rules import (
    learners_beside,
    predicted,
    require_config,
    require_docstring,
    require_public_imports,
    require_queries_alone,
    require_tasks_apart,
    require_unchanged,
    settings_among,
    some_tasks,
    state_of,
    untouched_global_state,
)
from bench.testing.tiny import tiny_context, tiny_net, tiny_pool

QUICK = {
    "inversion_steps": 2,
    "images_per_class": 2,
    "meta_iterations": 2,
    "steps": 3,
    "adaptation_steps": 2,
    "max_rounds": 2,
    "max_steps": 5,
    "generation_steps": 2,
    "directions": 2,
    "generator_width": 4,
    "latent_size": 8,
    "similarity_images": 8,
    "distillation_steps": 1,
    "warmup": 1,
    "batch": 8,
}
"""Settings that shorten a fit, for the methods that have them."""

SHAPE = TaskShape(5, 2, 3)
KNOWLEDGE = ("parameters", "inversion", "features", "real_data")
NEEDS = {"same_architecture", "shared_initialisation", "bn_statistics"}


@functools.cache
def same_pool(net: str) -> Pool:
    """Return three teachers of one architecture with a known shared initialisation."""
    pool = tiny_pool((net,) * 3, 5, 16, torch.Generator().manual_seed(0))
    start = tiny_net(torch.Generator().manual_seed(1), net, 5, 16).state_dict()
    return Pool(pool.teachers, pool.sha256, {pool[0].spec: start})


@functools.cache
def mixed_pool(net: str) -> Pool:
    """Return three teachers of two architectures."""
    other = "resnet10" if net != "resnet10" else "conv4"
    return tiny_pool((net, other, net), 5, 16, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Fitting:
    """One fit: the method's context, its result, and the random streams that it asked for.

    `reason` is why the method skipped the pool; `fitted` is then empty.
    """

    context: FitContext
    fitted: Mapping[str, Tensor]
    streams: tuple[str, ...]
    reason: str | None = None


MakePool = Callable[[str], Pool]
"""Name of an architecture → a pool."""


class MethodSubject:
    """A method and its fits, each of which is made once.

    Args:
        name: the registered name.
        net: architecture of the pools and of the meta-model.
        settings: of its configuration, beside those of `QUICK` that it has.
    """

    def __init__(
        self, name: str, net: str = "conv4", settings: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self.net = name, net
        self.method: type[Method] = registry.load("method", name)
        self.settings = {**settings_among(self.method.Config, QUICK), **(settings or {})}
        validated(self.method.Config, self.settings, f"'{name}'")
        self._fits: dict[tuple[Any, ...], Fitting] = {}

    def context(
        self,
        pool: Pool,
        seed: int = 0,
        learner: str | None = None,
        device: torch.device | None = None,
    ) -> FitContext:
        """Return the context of a fit; teachers stay on their device."""
        return tiny_context(
            self.method,
            pool if self.method.uses_pool else Pool([], ""),
            shape=SHAPE,
            learner=learner,
            config=self.settings,
            net=NetSpec(self.net, SHAPE.n_way, 16),
            seed=seed,
            budget={"meta_iterations": 2},
            protocol={"tasks_per_meta_batch": 2},
            device=device,
        )

    def fit(self, pool: MakePool = same_pool, seed: int = 0, again: int = 0) -> Fitting:
        """Return the fit to a pool with a seed; another number `again` repeats it."""
        key = pool.__name__, seed, again
        if key not in self._fits:
            self._fits[key] = self._make(pool(self.net), seed)
        return self._fits[key]

    def served(self, pool: MakePool = same_pool) -> Fitting:
        """Return the fit to a pool.

        Raises:
            Skip: the method does not serve it.
        """
        found = self.fit(pool)
        if found.reason is not None:
            raise Skip(found.reason)
        return found

    def learners(self) -> list[str]:
        """Return the learners that the method is checked with, its default first."""
        known = learners_beside("method", self.name)
        return [name for name in serving_learners(self.method) if name in known]

    def learner(self, fitting: Fitting, learner: str | None = None) -> Learner:
        """Return a learner of a fit: the method's default, or another."""
        pool = fitting.context.pool
        context = fitting.context if learner is None else self.context(pool, learner=learner)
        return self.method().learner(context, fitting.fitted)

    def _make(self, pool: Pool, seed: int) -> Fitting:
        streams: list[str] = []
        context = self.context(pool, seed)

        def generator(purpose: str) -> torch.Generator:
            streams.append(purpose)
            return context.generator(purpose)

        kinds = {teacher.spec.architecture for teacher in pool}
        if "same_architecture" in self.method.needs_of(context.config) and len(kinds) > 1:
            return Fitting(context, {}, (), "the harness refuses pools of several architectures")
        if reason := self.method().skip(context):
            return Fitting(context, {}, (), reason)
        before = [state_of(teacher.net) for teacher in pool]
        try:
            with untouched_global_state():
                fitted = self.method().fit(replace(context, generator=generator))
        except Skip as skip:
            return Fitting(context, {}, (), str(skip))
        for teacher, state in zip(pool, before, strict=True):
            require_unchanged(teacher.net, state, f"teacher {teacher.name}")
        return Fitting(context, fitted, tuple(streams))


def declares_what_the_contract_asks(subject: MethodSubject) -> str:
    """Declares name, knowledge, needs, presets and the learners that serve it."""
    method = subject.method
    require(issubclass(method, Method), f"{method} is no subclass of bench.contract.Method")
    require(method.name == subject.name, f"name is '{method.name}', registered '{subject.name}'")
    require("released" in method.presets, "there is no preset 'released'")
    strangers = sorted({preset for preset, _ in method.learner_presets} - set(method.presets))
    require(not strangers, f"learner_presets has {', '.join(strangers)}, presets has not")
    for values in [*method.presets.values(), *method.learner_presets.values()]:
        config = method.Config.model_validate(dict(values))
        wrong = sorted(method.needs_of(config) - NEEDS)
        require(not wrong, f"needs {', '.join(wrong)}; known: {', '.join(sorted(NEEDS))}")
        known = method.knowledge_of(config)
        require(known in KNOWLEDGE, f"knowledge is '{known}'; known: {', '.join(KNOWLEDGE)}")
    learners = subject.learners()
    require(
        learners[:1] == [method.default_learner],
        f"default_learner '{method.default_learner}' is not registered, or does not serve",
    )
    return f"learners: {', '.join(learners)}"


def describes_itself(subject: MethodSubject) -> str:
    """Has a docstring, and one below each setting."""
    require_config(subject.method.Config)
    return require_docstring(subject.method)


def imports_only_what_plug_ins_may(subject: MethodSubject) -> None:
    """Imports no part of the harness that is not meant for plug-ins."""
    require_public_imports(subject.method)


def serves_one_architecture(subject: MethodSubject) -> None:
    """Fits a pool of one architecture; changes neither teachers nor global random streams."""
    reason = subject.fit().reason
    require(reason is None, f"skips three teachers of {subject.net}: {reason}")


def serves_or_refuses_a_mixed_pool(subject: MethodSubject) -> str:
    """Fits a pool of two architectures, or returns a reason why not."""
    reason = subject.fit(mixed_pool).reason
    require(reason is None or reason.strip(), "skip returns an empty reason")
    return f"not served: {reason}" if reason else ""


def follows_its_seed(subject: MethodSubject) -> None:
    """Gives equal fits with equal seeds."""
    first, second = subject.served(), subject.fit(again=1)
    require(first.fitted.keys() == second.fitted.keys(), "two fits differ in their entries")
    for name, value in first.fitted.items():
        require(torch.equal(value, second.fitted[name]), f"two fits of one seed differ in '{name}'")


def draws_from_its_streams_alone(subject: MethodSubject) -> str:
    """Gives different fits with different seeds only if it asked for a generator."""
    first, other = subject.served(), subject.fit(seed=1)
    differ = any(not torch.equal(v, other.fitted[name]) for name, v in first.fitted.items())
    require(not differ or first.streams, "fits differ by seed, and no generator was asked for")
    return "the seed changes the fit" if differ else "the seed changes nothing"


def predicts_every_task(subject: MethodSubject) -> None:
    """Predicts with every learner that serves it: finite logits, no graph, each task by itself.

    Where the method and its learner count as inductive, each query by itself, too.
    """
    fitting = subject.served()
    for name in subject.learners():
        learner = subject.learner(fitting, name)
        require(learner.n_parameters > 0, f"n_parameters of {name} is {learner.n_parameters}")

        def predict(tasks: TaskBatch, _: int, one: Learner = learner) -> Tensor:
            return predicted(one, tasks)

        require_tasks_apart(predict, some_tasks())
        given, kind = fitting.context, registry.load("learner", name)
        batch = subject.method.bn_of(given.config, kind, given.protocol) == "transductive"
        if not batch and not kind.transductive:
            require_queries_alone(functools.partial(predicted, learner), some_tasks())


def predicts_from_a_mixed_pool(subject: MethodSubject) -> None:
    """Predicts after a fit to a pool of two architectures, if it can fit one."""
    predicted(subject.learner(subject.served(mixed_pool)), some_tasks())


SUBJECTS = {"method": MethodSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "method": (
        declares_what_the_contract_asks,
        describes_itself,
        imports_only_what_plug_ins_may,
        serves_one_architecture,
        serves_or_refuses_a_mixed_pool,
        follows_its_seed,
        draws_from_its_streams_alone,
        predicts_every_task,
        predicts_from_a_mixed_pool,
    )
}
