"""The context of a cell: the networks, learners, tasks and validation that a method receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.contract import (
    Backbone,
    BnMode,
    FitContext,
    Learner,
    MetaLearner,
    Method,
    NetSpec,
    Pool,
    TaskBatch,
)
from bench.data.base import ImageData
from bench.data.tasks import random_tasks
from bench.errors import Skip
from bench.execute.evaluate import evaluate, task_lists
from bench.execute.fits import FitRun
from bench.learners.base import LearnerSettings, resize_tasks, resized
from bench.nets.base import initialise, placed
from bench.nets.build import build_net
from bench.nets.norm import holds_statistics
from bench.results.predictions import Predictions
from bench.seeds import torch_generator
from bench.suites.cell import Cell


@dataclass(frozen=True)
class CellContext:
    """A cell with its method, pool, meta-model and data, as the harness knows them.

    `fit_context` returns the part of it that the method may see.
    """

    cell: Cell
    method: Method
    pool: Pool
    net: NetSpec
    sets: Sequence[ImageData]
    device: torch.device

    def fit_context(self, run: FitRun) -> FitContext:
        """Return the method's `FitContext`; the fit adds the state to resume from.

        Args:
            run: where the fit reports, and what keeps its checkpoints.
        """
        cell, method = self.cell, self.method
        validates = method.validates and cell.protocol.selection != "last"
        return FitContext(
            pool=self.pool,
            net=self.net,
            shape=cell.shape,
            learner=cell.learner,
            learner_class=registry.load("learner", cell.learner),
            config=method.Config.model_validate(cell.method_config),
            budget=cell.budget,
            protocol=cell.protocol,
            device=self.device,
            log=run.log,
            generator=self.generator,
            build_net=self.build_net,
            training_learner=self.training_learner,
            make_learner=self.make_learner,
            validate=run.validation(self.validate) if validates else None,
            resume=None,
            save=run.save,
            due=run.due,
            train_tasks=self.train_tasks if method.knowledge == "real_data" else None,
        )

    def generator(self, purpose: str) -> torch.Generator:
        """Return the generator of one purpose of the fit."""
        return torch_generator("fit", self.cell.method, purpose, self.cell.seed)

    def build_net(self, generator: torch.Generator) -> Backbone:
        """Return a meta-model with newly drawn weights."""
        model = build_net(self.net)
        initialise(model, generator)
        return placed(model, self.device)

    def training_learner(self, model: Backbone) -> MetaLearner:
        """Return the cell's learner around a meta-model, with the training settings."""
        protocol = self.cell.protocol
        self._check_statistics(model.state_dict(), protocol.bn)
        settings = self._settings(protocol.inner_steps_train, protocol.bn)
        return registry.load("learner", self.cell.learner)(model, settings)

    def make_learner(self, state: Mapping[str, Tensor], bn: BnMode | None = None) -> Learner:
        """Return the cell's learner around the weights of a meta-model, with the test settings.

        Args:
            state: a complete state dict of the meta-model.
            bn: the mode of batch norm in place of the protocol's.
        """
        bn = bn or self.cell.protocol.bn
        self._check_statistics(state, bn)
        model = build_net(self.net)
        model.load_state_dict(state)
        model = placed(model, self.device).requires_grad_(False).eval()
        settings = self._settings(self.cell.protocol.inner_steps_test, bn)
        return registry.load("learner", self.cell.learner)(model, settings)

    def train_tasks(self, generator: torch.Generator, n_tasks: int) -> TaskBatch:
        """Return real tasks of the meta-train split of one data set, drawn among several."""
        several = len(self.sets) > 1
        index = int(torch.randint(len(self.sets), (), generator=generator)) if several else 0
        data = self.sets[index]
        split = data.splits["train"]
        tasks = random_tasks(split, self.cell.shape, n_tasks, generator)
        batch = tasks.batch(split, 0, n_tasks, data.mean, data.std, self.device)
        return resize_tasks(batch, self.net.image_size)

    def validate(
        self, learner: Learner, after: Callable[[Predictions], None] = lambda done: None
    ) -> float:
        """Return the mean accuracy on validation tasks, or on test tasks under `test_max`.

        Args:
            learner: the learner to score.
            after: see `evaluate`.
        """
        name = "val" if self.cell.protocol.selection == "val" else "test"
        lists = task_lists(self.cell, self.sets, name, learner)
        learner = self.at_its_size(learner)
        accuracies = [
            evaluate(learner, data, data.splits[name], tasks, self.device, after=after)
            for data, tasks in zip(self.sets, lists, strict=True)
        ]
        return float(np.mean(np.concatenate(accuracies)))

    def at_its_size(self, learner: Learner) -> Learner:
        """Return the learner for tasks of all image sizes: a meta-model meets them at its own.

        Learners of the teachers' features meet images as they are; each teacher resizes them.
        """
        one_size = len({data.image_size for data in self.sets}) == 1
        if self.method.knowledge == "features" or one_size:
            return learner
        return resized(learner, self.net.image_size)

    def _settings(self, inner_steps: int, bn: BnMode) -> LearnerSettings:
        protocol = self.cell.protocol
        return LearnerSettings(
            inner_lr=protocol.inner_lr,
            inner_steps=inner_steps,
            bn=bn,
            first_order=protocol.first_order,
            n_way=self.cell.n_way,
        )

    def _check_statistics(self, state: Mapping[str, Tensor], bn: BnMode) -> None:
        if bn == "running" and not holds_statistics(state):
            raise Skip(
                "bn = running needs stored statistics, and this meta-model holds none: it started "
                "from fresh weights, and meta-training stores none; use transductive or support"
            )
