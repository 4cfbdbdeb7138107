"""Small networks, pools, tasks and contexts for checks and tests of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.contract import (
    Backbone,
    BnMode,
    Budget,
    FitContext,
    Learner,
    MetaLearner,
    Method,
    NetSpec,
    Pool,
    TaskBatch,
    TaskShape,
    Teacher,
)
from bench.learners.base import LearnerSettings
from bench.nets import build
from bench.nets.base import initialise, placed
from bench.seeds import torch_generator
from bench.suites.protocols import protocol as named_protocol

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def tiny_net(
    generator: torch.Generator, architecture: str = "conv4", n_classes: int = 5, size: int = 16
) -> Backbone:
    """Return a network with random weights and random running statistics."""
    net = build.build_net(NetSpec(architecture, n_classes, size))
    initialise(net, generator)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return net


def tiny_pool(
    architectures: Sequence[str],
    n_classes: int,
    image_size: int,
    generator: torch.Generator,
    accuracies: Sequence[float] | None = None,
) -> Pool:
    """Return one untrained teacher per architecture, each with `n_classes` classes of its own."""
    teachers = []
    for index, architecture in enumerate(architectures):
        net = tiny_net(generator, architecture, n_classes, image_size)
        ids = tuple(range(index * n_classes, (index + 1) * n_classes))
        teachers.append(
            Teacher(
                name=f"tiny/{index:02d}",
                dataset="tiny",
                spec=NetSpec(architecture, n_classes, image_size),
                class_names=tuple(f"class {i}" for i in ids),
                class_ids=ids,
                mean=MEAN,
                std=STD,
                accuracy=accuracies[index] if accuracies else 0.5 + 0.01 * index,
                sha256=f"{index:064x}",
                net=net.requires_grad_(False).eval(),
            )
        )
    return Pool(teachers, "tiny pool")


def tiny_tasks(
    generator: torch.Generator,
    n_tasks: int = 3,
    shape: TaskShape = TaskShape(5, 1, 3),  # noqa: B008  frozen
    size: int = 16,
    separation: float = 1.0,
) -> TaskBatch:
    """Return tasks whose classes are noise around one random image per class, sorted by class."""
    centres = torch.randn(n_tasks, shape.n_way, 1, 3, size, size, generator=generator)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(n_tasks, shape.n_way, n, 3, size, size, generator=generator)
        labels = torch.arange(shape.n_way).repeat_interleave(n)
        return (separation * centres + noise).flatten(1, 2), labels.expand(n_tasks, -1).contiguous()

    support_x, support_y = draw(shape.k_shot)
    query_x, query_y = draw(shape.n_query)
    return TaskBatch(support_x, support_y, query_x, query_y)


@dataclass
class RecordingLog:
    """A `FitLog` that keeps everything."""

    points: list[tuple[int, str, float]] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extras: dict[str, object] = field(default_factory=dict)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Keep the values as floats."""
        self.points += [(step, name, float(value)) for name, value in values.items()]

    def images(
        self, name: str, images: Tensor, captions: Sequence[str] = (), columns: int | None = None
    ) -> None:
        """Keep a copy of the images."""
        self.pictures[name] = images.detach().clone()

    def count(self, name: str, amount: int) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def backend(self, part: str, name: str) -> None:
        """Keep the name."""
        self.backends[part] = name

    def note(self, text: str) -> None:
        """Keep the sentence."""
        self.notes.append(text)

    def extra(self, name: str, value: object) -> None:
        """Keep the value."""
        self.extras[name] = value

    def progress(self, step: int, total: int) -> None:
        """Keep the step."""
        self.steps.append((step, total))

    def curve(self, name: str) -> dict[int, float]:
        """Return step → value of one scalar."""
        return {step: value for step, key, value in self.points if key == name}


def tiny_context(
    method: Method | type[Method],
    pool: Pool,
    *,
    shape: TaskShape = TaskShape(5, 1, 3),  # noqa: B008  frozen
    learner: str | None = None,
    config: Mapping[str, Any] | None = None,
    net: NetSpec | None = None,
    seed: int = 0,
    budget: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    validate: Callable[[Learner], float] | None = None,
    resume: dict[str, Any] | None = None,
    save: Callable[[int, dict[str, Any]], None] | None = None,
    device: torch.device | None = None,
) -> FitContext:
    """Return a context as the harness would build it: six meta-iterations, 16-pixel images.

    Its log is a `RecordingLog`; real tasks are noise around a random image per class; `budget`
    and `protocol` override single constants. With `save`, a checkpoint is due at every step, else
    never. Without a device all is on the CPU; teachers stay on their device.
    """
    device = device or torch.device("cpu")
    net = net or NetSpec("conv4", shape.n_way, 16)
    learner = learner or method.default_learner
    learner_class = registry.load("learner", learner)
    counts: dict[str, Any]
    counts = {"teacher_epochs": 1, "meta_iterations": 6, "validate_every": 2, "n_val_tasks": 4}
    counts |= budget or {}
    counts.setdefault("oracle_iterations", counts["meta_iterations"])
    constants = named_protocol("cvpr23").model_copy(update=dict(protocol or {}))

    def settings(steps: int, bn: BnMode) -> LearnerSettings:
        return LearnerSettings(
            inner_lr=constants.inner_lr,
            inner_steps=steps,
            bn=bn,
            first_order=constants.first_order,
            n_way=shape.n_way,
        )

    def build_net(generator: torch.Generator) -> Backbone:
        model = build.build_net(net)
        initialise(model, generator)
        return placed(model, device)

    def training_learner(model: Backbone) -> MetaLearner:
        return learner_class(model, settings(constants.inner_steps_train, constants.bn))

    def make_learner(state: Mapping[str, Tensor], bn: BnMode | None = None) -> Learner:
        model = build.build_net(net)
        model.load_state_dict(state)
        model = placed(model, device).requires_grad_(False).eval()
        return learner_class(model, settings(constants.inner_steps_test, bn or constants.bn))

    return FitContext(
        pool=pool,
        net=net,
        shape=shape,
        learner=learner,
        learner_class=learner_class,
        config=method.Config.model_validate(dict(config or {})),
        budget=Budget(name="tiny", **counts),
        protocol=constants,
        device=device,
        log=RecordingLog(),
        generator=lambda purpose: torch_generator("fit", method.name, purpose, seed),
        build_net=build_net,
        training_learner=training_learner,
        make_learner=make_learner,
        validate=validate,
        resume=resume,
        save=save or (lambda step, state: None),
        due=lambda: save is not None,
        train_tasks=(
            (lambda generator, n: tiny_tasks(generator, n, shape, net.image_size).to(device))
            if method.knowledge == "real_data"
            else None
        ),
    )
