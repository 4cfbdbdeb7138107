"""Pseudo tasks of the meta-training loop: invert, sample, and take adversarial steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.contract import FitContext, MetaLearner, TaskBatch
from bench.training.curriculum import GradientSwitch, NoSwitch, RandomSwitch, Switch
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset
from purer.gallery import show_gallery
from purer.pixel_step import PixelStep
from purer.pseudo_classes import PseudoClasses
from purer.teacher_draw import TeacherDraw


class PseudoTasks:
    """The task source of episode curriculum inversion: pixel steps and pseudo tasks alternate.

    Initial pixels, teachers, shifts, training tasks, their augmentation and adversarial tasks each
    have a random stream of their own; so neither the number of teachers nor the curriculum changes
    which tasks are drawn (hazard H21).

    Args:
        context: what the method was given; its config is a `PurerConfig`.
        dataset: the pseudo images.
        net: the meta-model, whose parameters the loop changes in place.
        learner: the cell's learner around it, with the training settings.
        classes: the classifier that is trained beside the tasks; None without.
    """

    def __init__(
        self,
        context: FitContext[PurerConfig],
        dataset: DynamicDataset,
        net: nn.Module,
        learner: MetaLearner,
        classes: PseudoClasses | None = None,
    ) -> None:
        config, protocol = context.config, context.protocol
        total = context.budget.meta_iterations
        self._context, self._dataset, self._net, self._learner = context, dataset, net, learner
        self._pixels = PixelStep(
            dataset,
            context.pool,
            config.inversion_weights,
            protocol.pixel_lr if config.pixel_lr is None else config.pixel_lr,
            protocol.clip_pixels if config.clip_pixels is None else config.clip_pixels,
            config.jitter,
            protocol.teacher_weights,
            context.generator("jitter"),
            config.teacher_memory_mb * 2**20,
            context.log.backend,
        )
        self._draw = TeacherDraw(
            len(context.pool), protocol.teachers_per_iteration, context.generator("teachers")
        )
        self._switch = _switch(context)
        self._classes = classes
        self._warmup, self._warmed = _warmup_steps(context), 0
        self._watched: dict[str, Tensor] = {}
        self._tasks = context.generator("pseudo tasks")
        self._augment = config.augmentation
        self._augmenting = context.generator("augmentation")
        self._adversarial_tasks = context.generator("adversarial tasks")
        self._gallery = {total // 2: "pseudo images, middle", total: "pseudo images, end"}

    def prepare(self, iteration: int) -> Iterator[None]:
        """Take the pixel steps of the warm-up, which come before the first meta-iteration.

        They are numbered up to 0 in the log.
        """
        if iteration == 1 and self._warmed == 0:
            self._show("pseudo images, start")
        while iteration == 1 and self._warmed < self._warmup:
            self._warmed += 1
            self._pixel_step(self._warmed - self._warmup, adversarial=False)
            yield

    def next_tasks(self, iteration: int) -> TaskBatch:
        """Take the pixel step of a meta-iteration (from 1), then draw its tasks, detached."""
        config = self._context.config
        if config.pixels == "dynamic" and (iteration - 1) % config.pixel_every == 0:
            self._pixel_step(iteration, adversarial=self._switch.take())
        if iteration in self._gallery:
            self._show(self._gallery[iteration])
        with torch.no_grad():
            tasks = self._sample(self._context.protocol.tasks_per_meta_batch, self._tasks)
            support_x = self._augment(tasks.support_x, self._augmenting)
            query_x = self._augment(tasks.query_x, self._augmenting)
        return replace(tasks, support_x=support_x, query_x=query_x)

    def observe(self, iteration: int, accuracy: float | Tensor) -> None:
        """Pass the meta step's mean pseudo-query accuracy to the gradient switch."""
        self._switch.observe(iteration, accuracy)
        self._context.log.scalars(iteration, {"armed": float(self._switch.armed)})
        if self._classes is not None:
            self._classes.step()
            self._context.log.scalars(iteration, {"class_loss": self._classes.last})

    def watched(self) -> dict[str, Tensor]:
        """Return the terms of the last inversion loss, 0-d tensors, the sum of all last."""
        return self._watched

    def adversarial_gradient(self) -> Tensor:
        """Return the gradient of the outer loss of one newly drawn pseudo task on all pixels.

        It flows through the queries and, through the inner loop, through the support images; the
        meta-model's own gradients stay as they are.
        """
        tasks = self._sample(1, self._adversarial_tasks)
        losses, _ = self._learner.outer_loss(dict(self._net.named_parameters()), tasks)
        (gradient,) = torch.autograd.grad(losses.sum(), self._dataset.images)
        return gradient

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit: pixels, optimiser, switch, streams."""
        return {
            "warmed": self._warmed,
            "pixels": self._pixels.state_dict(),
            "switch": self._switch.state_dict(),
            "tasks": self._tasks.get_state(),
            "adversarial_tasks": self._adversarial_tasks.get_state(),
            "augmentation": self._augmenting.get_state(),
            "teachers": self._draw.get_state(),
        } | ({"classes": self._classes.state_dict()} if self._classes else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._warmed = int(state["warmed"])
        self._pixels.load_state_dict(state["pixels"])
        self._switch.load_state_dict(state["switch"])
        self._tasks.set_state(state["tasks"].cpu())
        self._adversarial_tasks.set_state(state["adversarial_tasks"].cpu())
        self._augmenting.set_state(state["augmentation"].cpu())
        self._draw.set_state(state["teachers"])
        if self._classes is not None:
            self._classes.load_state_dict(state["classes"])

    def _pixel_step(self, iteration: int, adversarial: bool) -> None:
        teachers = self._draw()
        gradient, terms = self._pixels.inversion_gradient(teachers)
        self._watched = {name: terms[name] for name in sorted(terms, key="inversion".__eq__)}
        if adversarial:
            scale = self._context.config.adversarial_scale
            gradient.sub_(self.adversarial_gradient(), alpha=scale)
        self._pixels.apply(gradient)
        log = self._context.log
        log.scalars(iteration, {**terms, "adversarial": float(adversarial)})
        images, forwards = self._dataset.count_images(teachers)
        log.count("pseudo_images", images)
        log.count("teacher_forward_images", forwards)

    def _sample(self, n_tasks: int, generator: torch.Generator) -> TaskBatch:
        context = self._context
        return self._dataset.sample_tasks(
            n_tasks, context.shape, generator, context.protocol.pseudo_split
        )

    def _show(self, name: str) -> None:
        context = self._context
        per_class = context.config.gallery_images_per_class
        show_gallery(context.log, name, self._dataset, context.pool, per_class)


def _switch(context: FitContext[PurerConfig]) -> Switch:
    """Return the switch that decides which pixel steps are adversarial."""
    config, total = context.config, context.budget.meta_iterations
    start = config.first_adversarial_iteration(total)
    if not config.curriculum or config.pixels != "dynamic":
        return NoSwitch()
    if config.random_switches:
        count, times = config.switches(context.shape.k_shot), context.generator("random switch")
        return RandomSwitch(start, total, count, times)
    return GradientSwitch(start, config.adversarial_patience)


def _warmup_steps(context: FitContext[PurerConfig]) -> int:
    """Return the pixel steps before the first meta-iteration."""
    config = context.config
    if config.pixels == "noise":
        return 0
    later = -(-context.budget.meta_iterations // config.pixel_every)
    return config.pixel_warmup + (later if config.pixels == "fixed" else 0)
