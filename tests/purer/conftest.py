"""Small pools of untrained teachers and a task source over one, in milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bench.contract import FitContext, NetSpec, Pool, TaskBatch, TaskShape, Teacher
from bench.nets.base import initialise
from bench.nets.conv4 import Conv4
from bench.nets.norm import batch_norm
from bench.seeds import torch_generator
from bench.suites.protocols import budget
from bench.suites.protocols import protocol as named_protocol
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset
from purer.pseudo_tasks import PseudoTasks


def untrained_net(n_outputs: int, generator: torch.Generator) -> Conv4:
    """Return a 4-channel Conv4 for 16 px with fresh weights."""
    net = Conv4(n_outputs, 16, channels=4)
    initialise(net, generator)
    return net


def untrained_teacher(index: int, class_ids: tuple[int, ...], n_outputs: int) -> Teacher:
    """Return a 4-channel Conv4 for 16 px with fresh weights that differ by index."""
    net = untrained_net(n_outputs, torch.Generator().manual_seed(index))
    return Teacher(
        name=f"teacher{index}",
        dataset="drawn",
        spec=NetSpec("conv4", n_outputs, 16),
        class_names=tuple(f"class{i}" for i in class_ids),
        class_ids=class_ids,
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.1),
        accuracy=0.5,
        sha256=str(index),
        net=net.eval().requires_grad_(False),
    )


@pytest.fixture
def make_pool() -> Callable[..., Pool]:
    """A function (class ids of each teacher, n_outputs=3) → pool."""

    def make(*class_ids: tuple[int, ...], n_outputs: int = 3) -> Pool:
        teachers = [untrained_teacher(i, ids, n_outputs) for i, ids in enumerate(class_ids)]
        return Pool(teachers, sha256="drawn")

    return make


class OneStepMaml:
    """Second-order MAML of one inner step, in plain autograd: the least that an outer loss is."""

    def __init__(self, net: nn.Module, inner_lr: float = 0.01):
        self.net, self.inner_lr = net, inner_lr

    def outer_loss(self, params: dict[str, Tensor], tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Return query losses (T,) and logits (T, Q, n_way)."""
        results = [self._task(params, *task) for task in zip(*vars(tasks).values(), strict=True)]
        losses, logits = zip(*results, strict=True)
        return torch.stack(losses), torch.stack(logits)

    def _task(self, params, support_x, support_y, query_x, query_y):
        loss = F.cross_entropy(self._logits(params, support_x), support_y)
        gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        adapted = {
            name: value - self.inner_lr * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
        logits = self._logits(adapted, query_x)
        return F.cross_entropy(logits, query_y), logits

    def _logits(self, params, images):
        return functional_call(self.net, params, (images, batch_norm))


class MemoryLog:
    """Keeps what a fit reports."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.grids: dict[str, tuple[Tensor, list[str]]] = {}
        self.columns: dict[str, int | None] = {}
        self.counts: Counter[str] = Counter()
        self.backends: dict[str, str] = {}

    def scalars(self, step, values) -> None:
        self.steps.append((step, {name: float(value) for name, value in values.items()}))

    def images(self, name, images, captions=(), columns=None) -> None:
        self.grids[name] = (images, list(captions))
        self.columns[name] = columns

    def count(self, name, amount) -> None:
        self.counts[name] += amount

    def backend(self, part, name) -> None:
        self.backends[part] = name

    def progress(self, step, total) -> None:
        """Progress is the loop's to report, not the task source's."""


@dataclass
class SourceParts:
    """A task source and what it was made of."""

    source: PseudoTasks
    dataset: DynamicDataset
    net: nn.Module
    log: MemoryLog


@pytest.fixture
def make_context(make_pool) -> Callable[..., FitContext]:
    """A function (seed, total, protocol entries, pool, config) → context of two small teachers."""

    def make(seed=0, total=30, protocol=(), pool=None, **config) -> FitContext:
        return FitContext(
            pool=pool or make_pool((0, 1, 2), (3, 4, 5)),
            net=NetSpec("conv4", 3, 16),
            shape=TaskShape(n_way=3, k_shot=1, n_query=3),
            learner="maml",
            learner_class=OneStepMaml,
            config=PurerConfig(**config),
            budget=budget("micro").model_copy(
                update={"meta_iterations": total, "validate_every": 3}
            ),
            protocol=named_protocol("cvpr23").model_copy(update=dict(protocol)),
            device=torch.device("cpu"),
            log=MemoryLog(),
            generator=lambda purpose: torch_generator("test", seed, purpose),
            build_net=lambda generator: untrained_net(3, generator),
            training_learner=OneStepMaml,
            make_learner=lambda state, bn=None: dict(state),
            validate=None,
            resume=None,
            save=lambda step, state: None,
            due=lambda: False,
            train_tasks=None,
        )

    return make


@pytest.fixture
def make_source(make_context) -> Callable[..., SourceParts]:
    """A function of the arguments of `make_context` → pseudo tasks."""

    def make(**arguments) -> SourceParts:
        context = make_context(**arguments)
        images = context.config.images_per_class(context.shape)
        dataset = DynamicDataset(context.pool, images, context.generator("pseudo images"))
        net = context.build_net(context.generator("net"))
        source = PseudoTasks(context, dataset, net, OneStepMaml(net))
        return SourceParts(source, dataset, net, context.log)

    return make
