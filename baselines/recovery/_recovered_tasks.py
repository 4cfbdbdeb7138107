"""Meta-training on tasks of recovered images: when teachers are visited, and the memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.recovery._generator import PixelScale
from baselines.recovery._task_memory import TaskMemory
from bench.contract import Backbone, FitContext, TaskBatch
from bench.errors import BenchError
from bench.learners.batching import channels_last
from bench.learners.norms import task_batch_norm
from bench.training.curriculum import GradientSwitch

RELEASED_META_ITERATIONS = 60_000

Params = Mapping[str, Tensor]


def scaled(released: int, meta_iterations: int, root: int) -> int:
    """Return a released count scaled to a budget, by a root of its share of 60,000.

    The share is that of the released 60,000 meta-iterations; at least 1 is returned.
    """
    share = min(1.0, meta_iterations / RELEASED_META_ITERATIONS)
    return max(1, round(released * share ** (1 / root)))


def refusal(context: FitContext) -> str | None:
    """Return why images recovered from a pool cannot train the meta-model together, or None."""
    if len({(t.mean, t.std) for t in context.pool}) > 1:
        return "the teachers' images are normalised differently"
    if context.pool.n_classes < context.shape.n_way:
        return f"the pool knows {context.pool.n_classes} classes, n_way is {context.shape.n_way}"
    for teacher in context.pool:
        if len(teacher.class_ids) > context.net.n_classes:
            return (
                f"teacher {teacher.name} knows {len(teacher.class_ids)} classes, the meta-model "
                f"that learns its answers has {context.net.n_classes} outputs"
            )
    return None


def student_logits(net: Backbone, params: Params, images: Tensor, n_classes: int) -> Tensor:
    """Return the meta-model's first n_classes outputs at given parameters, of images (B, 3, H, W).

    Batch norm is by the batch.
    """
    logits = functional_call(net, dict(params), (channels_last(images), task_batch_norm))
    return logits[:, :n_classes]


class TeacherRounds:
    """Numbers of teachers in rounds: each once, in random order, before any is repeated."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self._n, self._generator, self._left = n, generator, list[int]()

    def take(self, count: int) -> list[int]:
        """Return the next numbers."""
        taken: list[int] = []
        while len(taken) < count:
            if not self._left:
                self._left = torch.randperm(self._n, generator=self._generator).tolist()
            taken.append(self._left.pop(0))
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue."""
        return {"left": list(self._left), "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._left = [int(i) for i in state["left"]]
        self._generator.set_state(state["generator"].cpu())


class RecoveredTasks(ABC):
    """A task source that draws from a memory of recovered images.

    Before the first meta-iteration teachers are visited until the memory has n_way classes; later
    one visit comes whenever the pseudo-query accuracy has not risen for `patience`
    meta-iterations. A visit recovers images, distils them into the meta-model in a step of its
    own, and puts them into the memory.

    Args:
        context: what the method was given.
        net: the meta-model, whose parameters the loop and the visits change in place.
        patience: meta-iterations without a better accuracy.
        memory_per_class: images kept of a class.
        gallery_per_class: images of a class in the log.
    """

    def __init__(
        self,
        context: FitContext,
        net: Backbone,
        patience: int,
        memory_per_class: int,
        gallery_per_class: int,
    ) -> None:
        first = context.pool[0]
        self.context, self.net = context, net
        self.scale = PixelScale(first.mean, first.std, context.device)
        self.memory = TaskMemory(memory_per_class, self.scale, context.device)
        self.rounds = TeacherRounds(len(context.pool), context.generator("teachers"))
        self.visits, self._visiting = 0, False
        self.parameters = dict(net.named_parameters())
        lr = context.protocol.outer_lr
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=lr, fused=True)
        self.streams = {"latents": context.generator("latents")}
        self._tasks = context.generator("pseudo tasks")
        self._plateau = GradientSwitch(0, patience)
        total = context.budget.meta_iterations
        self._gallery_per_class = gallery_per_class
        self._gallery = {1: "start", total // 2: "middle", total: "end"}

    @abstractmethod
    def visit(self, iteration: int) -> Generator[None, None, dict[str, Tensor]]:
        """Recover images from teachers, distil them, add them to the memory.

        Wherever it yields, it may be interrupted, and then goes on from its part of the state.

        Returns:
            0-d tensors for the log by name, among them `distillation`.
        """

    def prepare(self, iteration: int) -> Iterator[None]:
        """Visit teachers if it is time, or until the memory has classes enough for a task."""
        shape = self.context.shape
        if self._visiting or self._plateau.take():
            yield from self._visit(iteration)
        while len(self.memory.classes(shape.k_shot + 1)) < shape.n_way:
            yield from self._visit(iteration)

    def next_tasks(self, iteration: int) -> TaskBatch:
        """Draw the tasks of a meta-iteration from the memory."""
        context, shape = self.context, self.context.shape
        if iteration in self._gallery:
            name = f"recovered images, {self._gallery[iteration]}"
            self.memory.show(context.log, name, self._gallery_per_class)
        return self.memory.sample_tasks(context.protocol.tasks_per_meta_batch, shape, self._tasks)

    def observe(self, iteration: int, accuracy: float) -> None:
        """Keep the mean pseudo-query accuracy for the decision to visit."""
        self._plateau.observe(iteration, accuracy)

    def watched(self) -> dict[str, Tensor]:
        """Return nothing: a visit looks at its own losses."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit."""
        return {
            "memory": self.memory.state_dict(),
            "rounds": self.rounds.state_dict(),
            "visits": self.visits,
            "visiting": self._visiting,
            "optimiser": self.optimiser.state_dict(),
            "plateau": self._plateau.state_dict(),
            "tasks": self._tasks.get_state(),
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.memory.load_state_dict(state["memory"])
        self.rounds.load_state_dict(state["rounds"])
        self.visits, self._visiting = int(state["visits"]), state["visiting"]
        self.optimiser.load_state_dict(state["optimiser"])
        self._plateau.load_state_dict(state["plateau"])
        self._tasks.set_state(state["tasks"].cpu())
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name].cpu())

    def _visit(self, iteration: int) -> Iterator[None]:
        if not self._visiting:
            self._visiting, self.visits = True, self.visits + 1
        values = yield from self.visit(iteration)
        self._visiting = False
        noted = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
        if not all(math.isfinite(value) for value in noted.values()):
            raise BenchError(
                f"{noted} at visit {self.visits} of the teachers, meta-iteration {iteration}: not "
                "finite; lower generator_lr, distillation_inner_lr or the protocol's outer_lr"
            )
        self.context.log.scalars(iteration, {**noted, "visits": self.visits})

    def apply(self, gradients: Mapping[str, Tensor]) -> None:
        """Take one step on the meta-model's parameters with the visits' own Adam state."""
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name].detach().clone()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
