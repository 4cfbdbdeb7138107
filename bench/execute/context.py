"""What a method is given: networks, learners, tasks and a score, made from a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.contract import BnMode, FitContext, Learner, Method, NetSpec, Pool, TaskBatch
from bench.data.base import ImageData
from bench.data.tasks import random_tasks
from bench.errors import Skip
from bench.execute.evaluate import evaluate
from bench.execute.task_lists import task_lists
from bench.learners.base import LearnerSettings
from bench.learners.resized import resize_tasks, resized
from bench.nets.base import initialise
from bench.nets.build import build_net
from bench.nets.norm import holds_statistics
from bench.seeds import torch_generator
from bench.suites.cell import Cell


def fit_context(
    cell: Cell,
    method: Method,
    pool: Pool,
    net: NetSpec,
    sets: Sequence[ImageData],
    device: torch.device,
    log: Any = None,
    resume: dict[str, Any] | None = None,
    save: Callable[[int, dict[str, Any]], None] = lambda step, state: None,
) -> FitContext:
    """Build what the method is given; without a log it serves `skip` and `learner` only."""

    def build(generator: torch.Generator) -> torch.nn.Module:
        model = build_net(net)
        initialise(model, generator)
        return model.to(device=device, memory_format=torch.channels_last)

    kind = registry.load("learner", cell.learner)

    def settings(steps: int, bn: BnMode) -> LearnerSettings:
        return LearnerSettings(
            inner_lr=cell.protocol.inner_lr,
            inner_steps=steps,
            bn=bn,
            first_order=cell.protocol.first_order,
        )

    def check_statistics(state: Mapping[str, torch.Tensor], bn: BnMode) -> None:
        if bn == "running" and not holds_statistics(state):
            raise Skip(
                "bn = running needs stored statistics, and this meta-model holds none: it started "
                "from fresh weights, and meta-training stores none; use transductive or support"
            )

    def training_learner(model: torch.nn.Module) -> Any:
        check_statistics(model.state_dict(), cell.protocol.bn)
        return kind(model, settings(cell.protocol.inner_steps_train, cell.protocol.bn))

    def make_learner(state: Any, bn: BnMode | None = None) -> Learner:
        check_statistics(state, bn or cell.protocol.bn)
        model = build_net(net)
        model.load_state_dict(state)
        model = model.to(device=device, memory_format=torch.channels_last).requires_grad_(False)
        steps = cell.protocol.inner_steps_test
        return kind(model.eval(), settings(steps, bn or cell.protocol.bn))

    real = method.knowledge == "real_data"
    return FitContext(
        pool=pool,
        net=net,
        shape=cell.shape,
        learner=cell.learner,
        learner_class=kind,
        config=method.Config.model_validate(cell.method_config),
        budget=cell.budget,
        protocol=cell.protocol,
        device=device,
        log=log,
        generator=lambda purpose: torch_generator("fit", cell.method, purpose, cell.seed),
        build_net=build,
        training_learner=training_learner,
        make_learner=make_learner,
        validate=_validator(cell, method, net, sets, device) if method.validates else None,
        resume=resume,
        save=save,
        train_tasks=_train_tasks(cell, net, sets, device) if real else None,
    )


def _train_tasks(
    cell: Cell, net: NetSpec, sets: Sequence[ImageData], device: torch.device
) -> Callable[[torch.Generator, int], TaskBatch]:
    """Return (generator, n) → n real tasks of the meta-train split of one set, drawn among some."""

    def draw(generator: torch.Generator, n: int) -> TaskBatch:
        several = len(sets) > 1
        data = sets[int(torch.randint(len(sets), (), generator=generator)) if several else 0]
        split = data.splits["train"]
        tasks = random_tasks(split, cell.shape, n, generator)
        batch = tasks.batch(split, 0, n, data.mean, data.std, device)
        return resize_tasks(batch, net.image_size)

    return draw


def _validator(
    cell: Cell, method: Method, net: NetSpec, sets: Sequence[ImageData], device: torch.device
) -> Callable[[Learner], float] | None:
    """Return learner → mean accuracy on validation tasks, or on test tasks under `test_max`."""
    if cell.protocol.selection == "last":
        return None
    name = "val" if cell.protocol.selection == "val" else "test"

    def score(learner: Learner) -> float:
        lists = task_lists(cell, sets, name, learner)
        learner = at_its_size(method, learner, net, sets)
        accuracies = [
            evaluate(learner, data, data.splits[name], tasks, device)
            for data, tasks in zip(sets, lists, strict=True)
        ]
        return float(np.mean(np.concatenate(accuracies)))

    return score


def at_its_size(
    method: Method, learner: Learner, net: NetSpec, sets: Sequence[ImageData]
) -> Learner:
    """Return the learner for tasks of all image sizes: a meta-model meets them at its own.

    Learners of the teachers' features meet images as they are; each teacher resizes them.
    """
    if method.knowledge == "features" or len({one.image_size for one in sets}) == 1:
        return learner
    return resized(learner, net.image_size)
