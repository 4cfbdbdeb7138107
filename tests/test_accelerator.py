"""Every learner, calibration and method runs without making the CPU wait for an accelerator.

`meta` stands for the accelerator (`tests/accelerator.py`), and an optimiser that never moves for
torch's fused ones, which refuse `meta`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.merging._pseudo_images import InversionSettings
from bench.contract import BnMode, FitContext, Learner, MetaLearner, NetSpec, Pool
from bench.data.tasks import frozen_tasks
from bench.execute.evaluate import evaluate
from bench.execute.log import CellLog
from bench.learners.base import LearnerSettings
from bench.teachers.train import recipe_for, train_teacher
from bench.testing.calibrations import CalibrationSubject
from bench.testing.checks import subject_of
from bench.testing.learners import LearnerSubject
from bench.testing.methods import SHAPE, MethodSubject, mixed_pool, same_pool
from bench.testing.rules import some_tasks
from purer.gradients import VARIABLE
from tests.accelerator import Accelerator
from tests.helpers import tiny_pool, toy_data
from tests.test_conformance import METHODS, own_names

META = torch.device("meta")
HOST_READS = {
    "bench/training/meta_training.py:_MetaTraining._step": (
        "once a meta-iteration: losses are checked, and the curriculum follows the accuracy"
    ),
    "bench/nets/base.py:on_cpu.<locals>.<lambda>": "states, for checkpoints, validation and files",
    "bench/execute/log.py:CellLog.images": "pictures of a fit's start, middle and end",
    "bench/execute/log.py:CellLog._read_points": "curves, when they are written",
    "bench/execute/evaluate.py:_answers": "the answers to the queries of 32 tasks",
    "bench/teachers/train.py:_Training._check_loss": "once an epoch of a teacher",
    "bench/teachers/train.py:held_out_accuracy": "once an epoch of a teacher",
    "baselines/merging/_merging.py:on_host": "assignments and clusters are found on the CPU",
    "baselines/recovery/_recovered_tasks.py:RecoveredTasks._visit": (
        "losses are checked once a visit of the teachers"
    ),
    "baselines/recovery/_task_groups.py:_on_host": "groups of teachers are found once in a fit",
}
"""Where the CPU may read what an accelerator computed, and why; none is in an inner loop."""


class Still:
    """An optimiser that never moves."""

    def __init__(self, parameters: Any, lr: float = 0.0, **_: Any):
        self.param_groups = [{"params": list(parameters), "lr": lr}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def step(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Adam", "SGD"):
        monkeypatch.setattr(torch.optim, name, Still)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(HOST_READS)


def there(make_pool: Any) -> Pool:
    """Return a pool of the conformance checks with its networks on the accelerator."""
    pool = make_pool.__wrapped__("conv4")
    for teacher in pool:
        teacher.net.to(META)
    return pool


def four_teachers() -> Pool:
    """Return a pool that is large enough for several groups, on the accelerator."""
    pool = tiny_pool(("conv4",) * 4, 5, 16, torch.Generator().manual_seed(0))
    for teacher in pool:
        teacher.net.to(META)
    return pool


def context_of(subject: MethodSubject, pool: Pool, learner: str, **config: Any) -> FitContext:
    """Return a context as the harness makes it: it logs, validates and writes checkpoints."""

    def validate(learner: Learner) -> float:
        predict(learner)
        return 0.5

    made = subject.context(pool, learner=learner, device=META)
    log = CellLog()
    return dataclasses.replace(
        made,
        config=made.config.model_copy(update=config),
        log=log,
        validate=validate if subject.method.validates else None,
        save=lambda step, state: log.state_dict(),
        due=lambda: True,
    )


def predict(learner: Learner) -> None:
    batch = some_tasks().to(META)
    logits = learner.predict(batch.support_x, batch.support_y, batch.query_x)
    assert logits.shape == (3, 15, 5)
    assert logits.device == META


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("make_pool", [same_pool, mixed_pool])
def test_methods(accelerator: Accelerator, name: str, make_pool: Any) -> None:
    subject, pool = subject_of("method", name), there(make_pool)
    fitted: dict[str, Tensor] = {}
    learners = subject.learners()
    for learner in learners if make_pool is same_pool else learners[:1]:
        method, context = subject.method(), context_of(subject, pool, learner)
        one_kind = "same_architecture" in method.needs_of(context.config)
        if make_pool is mixed_pool and (one_kind or method.skip(context)):
            return
        if not fitted or "learner" in method.fit_depends_on:
            if make_pool is mixed_pool:  # what comes again and again is seen with the other
                once = context.budget.model_copy(update={"meta_iterations": 1})
                context = dataclasses.replace(context, budget=once)
            with accelerator:
                fitted = method.fit(context)
                context.log.curve()
        state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in fitted.items()}
        made = method.learner(context, state)
        with accelerator:
            predict(made)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("git_rebasin", {"measure_barrier": True}),
        ("c2m3", {"measure_barrier": True}),
        ("pleas", {"measure_barrier": True}),
        ("purer", {"class_weight": 1.0, "task_weight": 0.0}),
        ("otfusion", {"ground": "activations"}),
        ("single_dfkd", {"soft_label_weight": 1.0, "feature_weight": 1.0}),
        ("purer", {"adversarial_start": 1}),
        ("purer", {"backend": "fused"}),
        ("purer", {"backend": "fused", "teacher_memory_mb": 1}),
    ],
)
def test_what_methods_do_if_asked(
    accelerator: Accelerator, name: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, config.get("backend", ""))
    config = {key: value for key, value in config.items() if key != "backend"}
    quick = InversionSettings(inversion_steps=2, images_per_class=2)
    monkeypatch.setattr("baselines.merging._matched.InversionSettings", lambda: quick)
    subject = subject_of("method", name)
    context = context_of(subject, there(same_pool), subject.method.default_learner, **config)
    with accelerator:
        subject.method().fit(context)


@pytest.mark.parametrize("bn", get_args(BnMode))
@pytest.mark.parametrize("name", own_names("learner"))
def test_learners(accelerator: Accelerator, name: str, bn: BnMode) -> None:
    learner = learner_there(name, bn)
    with accelerator:
        predict(learner)
    if isinstance(learner, MetaLearner):
        params = {n: p.requires_grad_() for n, p in learner.net.named_parameters()}
        with accelerator:
            losses, _ = learner.outer_loss(params, some_tasks().to(META))
            losses.sum().backward()


def learner_there(name: str, bn: BnMode = "transductive") -> Learner:
    subject = LearnerSubject(name)
    return subject.kind(subject.network().to(META), LearnerSettings(bn=bn, n_way=5))


@pytest.mark.parametrize("name", own_names("calibration"))
def test_calibrations(accelerator: Accelerator, name: str) -> None:
    subject = CalibrationSubject(name)
    for learner, reason in subject.verdicts().items():
        if reason is None:
            wrapped = subject.wrap(learner_there(learner))
            with accelerator:
                predict(wrapped)


@pytest.mark.parametrize(("name", "bn"), [("maml", "transductive"), ("centroids", "running")])
def test_evaluation(accelerator: Accelerator, name: str, bn: BnMode) -> None:
    with accelerator:
        evaluate_there(learner_there(name, bn))


def evaluate_there(learner: Learner) -> None:
    data = toy_data()
    split = data.splits["test"]
    tasks = frozen_tasks("toy", "test", split.counts, SHAPE, 3)
    assert evaluate(learner, data, split, tasks, META).shape == (3,)


@pytest.mark.parametrize("architecture", own_names("net"))
def test_teachers(accelerator: Accelerator, architecture: str) -> None:
    with accelerator:
        train_there(architecture)


def train_there(architecture: str) -> None:
    few = torch.zeros(10, 3, 16, 16), torch.arange(10) % 5
    recipe = recipe_for(architecture, 1, "best")
    generator = torch.Generator().manual_seed(0)
    train_teacher(NetSpec(architecture, 5, 16), few, few, recipe, generator, META)


def test_every_read_that_is_listed_happens() -> None:
    assert len(HOST_READS) <= 10
    accelerator = Accelerator(HOST_READS)
    with accelerator:
        for name in ("bidf_mkd", "zipit"):
            subject = subject_of("method", name)
            context = context_of(subject, there(same_pool), subject.method.default_learner)
            subject.method().fit(context)
            context.log.curve()
        subject = subject_of("method", "tgr")
        subject.method().fit(context_of(subject, four_teachers(), "maml"))
        evaluate_there(learner_there("protonet"))
        train_there("conv4")
    assert accelerator.reads == set(HOST_READS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x.mean().item(), "waits for the accelerator"),
        (lambda x: x.tolist(), "waits for the accelerator"),
        (lambda x: x.cpu(), "waits for the accelerator"),
        (lambda x: torch.zeros(3).copy_(x), "waits for the accelerator"),
        (lambda x: 1 if x.any() else 0, "waits for the accelerator"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x + torch.ones(3), "mixes tensors"),
        (lambda x: x[torch.tensor([0])], "mixes tensors"),
        (lambda x: F.linear(torch.ones(2, 3), x[None]), "mixes tensors"),
        (lambda x: torch.func.vmap(lambda y: y + torch.ones(3))(x[None]), "mixes tensors"),
    ],
)
def test_the_accelerator_notices(wrong: Callable[[Tensor], object], message: str) -> None:
    x = torch.ones(3, device=META)
    with pytest.raises((RuntimeError, NotImplementedError), match=message), Accelerator({}):
        wrong(x)


def test_copies_to_the_accelerator_and_scalars_are_no_reads() -> None:
    with Accelerator({}):
        assert (torch.ones(3).to(META) * torch.tensor(2.0)).device == META
