"""Fits that are interrupted anywhere and taken up again: the same weights, counters and curves."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from baselines.distillation.cross_teacher import CrossTeacher
from baselines.distillation.distill_average import DistillAverage
from baselines.distillation.distill_ensemble import DistillEnsemble
from baselines.distillation.single_dfkd import SingleDfkd
from baselines.merging.fisher import Fisher
from baselines.merging.otfusion import OtFusion
from baselines.merging.regmean import RegMean
from baselines.simple.oracle import OracleMaml
from bench.contract import FitContext, Learner, Method, Pool
from purer.method import Purer
from tests.baselines.recovery_fits import METHODS as RECOVERIES
from tests.baselines.recovery_fits import QUICK as RECOVERING
from tests.helpers import RecordingLog, Saves, tiny_context, tiny_pool

DISTILLING = {
    "images_per_class": 3,
    "inversion_steps": 2,
    "inversion_batch": 5,
    "steps": 5,
    "batch": 8,
}
"""Three batches of each teacher's images; a student's rounds are shortened to two steps."""
INVERTING = {"inversion_steps": 2, "images_per_class": 2}
CASES: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "oracle": (OracleMaml, {}),
    "purer": (Purer, {"pixel_warmup": 2, "pixel_every": 2, "gallery_images_per_class": 1}),
    "purer, fixed": (Purer, {"pixels": "fixed"}),
    "cross_teacher": (CrossTeacher, {**DISTILLING, "steps": 2}),
    "distill_ensemble": (DistillEnsemble, DISTILLING),
    "distill_average": (DistillAverage, DISTILLING),
    "single_dfkd": (SingleDfkd, DISTILLING),
    "fisher": (Fisher, INVERTING),
    "regmean": (RegMean, INVERTING),
    "otfusion": (OtFusion, {**INVERTING, "ground": "activations"}),
    **{method.name: (method, RECOVERING[method.name]) for method in RECOVERIES},
}


def by_weights(learner: Learner) -> float:
    """Score a learner in a way that neither rises nor falls steadily."""
    net: Any = vars(learner)["net"]
    return abs(net.head.weight.sum().item())


def pool() -> Pool:
    return tiny_pool(("conv4", "conv4"), 5, 16, torch.Generator().manual_seed(0))


class CountingSaves(Saves):
    """Keeps with each state what the log had counted, and the last step of its curves."""

    def __init__(self) -> None:
        super().__init__()
        self.counters: list[dict[str, int]] = []
        self.points: list[int] = []
        self.context: FitContext | None = None

    def __call__(self, step: int, state: dict[str, Any]) -> None:
        """Keep a state and what was noted."""
        super().__call__(step, state)
        assert self.context is not None
        log: Any = self.context.log
        self.counters.append(dict(log.counters))
        self.points.append(len(log.points))


def made(case: str, **keywords: Any) -> tuple[Method, FitContext]:
    """Return the method of a case and a context; of `resume` and `save` what is given."""
    method, config = CASES[case]
    validate = by_weights if method.validates else None
    budget = {"meta_iterations": 4, "validate_every": 2}
    few = {"tasks_per_meta_batch": 2}
    context = tiny_context(
        method, pool(), config=config, budget=budget, protocol=few, validate=validate, **keywords
    )
    return method(), context


class Whole(NamedTuple):
    """A fit that nothing interrupted: what it came to, what it noted and what it offered."""

    fitted: dict[str, Tensor]
    log: Any
    saves: CountingSaves


@functools.cache
def whole_of(case: str) -> Whole:
    """Return the whole fit of a case, which both tests compare theirs with."""
    saves = CountingSaves()
    method, context = made(case, save=saves)
    saves.context = context
    return Whole(method.fit(context), context.log, saves)


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.distillation._student.ROUND", 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "every",
    [pytest.param(True, marks=pytest.mark.faults, id="every"), pytest.param(False, id="few")],
)
def test_states_that_a_fit_offers_lead_to_the_same_end(case: str, every: bool) -> None:
    """The few are one past the middle; the test below takes up each, and compares the weights."""
    whole, log, saves = whole_of(case)
    n = len(saves.states)
    assert n >= 4
    for index in range(n) if every else [n // 2]:
        method, resumed = made(case, resume=saves.states[index])
        fitted = method.fit(resumed)
        assert fitted.keys() == whole.keys()
        assert all(torch.equal(fitted[name], whole[name]) for name in whole), saves.steps[index]
        before, after = saves.counters[index], cast("RecordingLog", resumed.log)
        counted = {
            name: before.get(name, 0) + after.counters.get(name, 0)
            for name in before.keys() | after.counters.keys()
        }
        assert counted == log.counters, saves.steps[index]
        assert after.points == log.points[saves.points[index] :]


@pytest.mark.parametrize("case", CASES)
def test_a_fit_interrupted_after_each_of_its_steps_comes_to_the_same_end(case: str) -> None:
    """As if each slot of a queue were one step long; the first save repeats the last one where a
    validation is still to come."""
    whole, state, slots = whole_of(case).fitted, None, 0
    while True:
        saves = Saves(break_after=2)
        method, context = made(case, resume=state, save=saves)
        try:
            fitted = method.fit(context)
            break
        except KeyboardInterrupt:
            state, slots = saves.states[-1], slots + 1
            assert slots < 200
    assert slots >= 2
    assert all(torch.equal(fitted[name], whole[name]) for name in whole)
