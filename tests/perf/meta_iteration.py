"""One meta-iteration in two implementations, on the same teachers, pixels and tasks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.contract import NetSpec, Pool, TaskBatch, TaskShape, Teacher
from bench.execute.devices import wait_for
from bench.inversion.losses import InversionWeights
from bench.learners.base import LearnerSettings
from bench.learners.maml import Maml
from bench.nets.base import initialise
from bench.nets.build import build_net
from bench.nets.norm import training_norm
from bench.seeds import torch_generator
from purer.dynamic_dataset import DynamicDataset
from purer.pixel_step import PixelStep
from tests.perf.reference_loop import ReferenceLoop
from tests.purer.plain_gradients import PlainGradients

CPU = torch.device("cpu")
RELEASED = InversionWeights(1.0, 1e-2, 1e-4, 1e-5)


def drawn_pool(n: int, image_size: int = 32, architecture: str = "conv4", n_way: int = 5) -> Pool:
    """Return teachers of random weights whose BN statistics are those of noise."""
    teachers = []
    for index in range(n):
        generator = torch_generator("perf teacher", index)
        net = build_net(NetSpec(architecture, n_way, image_size))
        initialise(net, generator)
        noise = torch.randn(32, 3, image_size, image_size, generator=generator)
        layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for layer in layers:
            layer.momentum = 1.0
        with torch.no_grad():
            net(noise, training_norm)
        classes = tuple(range(n_way * index, n_way * (index + 1)))
        teachers.append(
            Teacher(
                name=f"teacher{index}",
                dataset="noise",
                spec=NetSpec(architecture, n_way, image_size),
                class_names=tuple(map(str, classes)),
                class_ids=classes,
                mean=(0.5,) * 3,
                std=(0.25,) * 3,
                accuracy=0.5,
                sha256=str(index),
                net=net.to(memory_format=torch.channels_last).eval().requires_grad_(False),
            )
        )
    return Pool(teachers, "drawn")


class MetaIterations:
    """Ours and the reference, side by side; both are given the same shifts and tasks.

    Args:
        pool: Conv4 teachers.
        folder: where the reference keeps the teachers' files.
        k_shot: support images of a class; there are 15 queries beside them.
        backend: how ours computes the teachers' gradients: one that the device offers, or `plain`,
            automatic differentiation; None takes the default.
        dtype: of teachers, pixels and meta-model.
        device: where they are.
    """

    def __init__(
        self,
        pool: Pool,
        folder: Path,
        k_shot: int,
        backend: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ):
        for teacher in pool:
            teacher.net.to(device, dtype)
        self._device = device
        self.shape = TaskShape(pool[0].spec.n_classes, k_shot, 15)
        draw = torch_generator("perf pixels")
        self.dataset = DynamicDataset(pool, k_shot + 15, draw, device)
        self.dataset.images = self.dataset.images.detach().to(dtype).requires_grad_()
        self.pixels = PixelStep(
            self.dataset, pool, RELEASED, 0.25, None, 2, "uniform", torch_generator("perf jitter")
        )
        self.pixels.backend = backend
        if backend == "plain":
            labels = [self.dataset.teacher_batch(index)[1] for index in range(len(pool))]
            self.pixels.gradients = PlainGradients(pool, labels, RELEASED)
        self.net = build_net(pool[0].spec).to(memory_format=torch.channels_last)
        initialise(self.net, torch_generator("perf net"))
        self.net.to(device, dtype)
        self.learner = Maml(self.net, LearnerSettings())
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        images, rows = self.dataset.images, self.dataset.rows
        self.reference = ReferenceLoop(pool, folder, images, rows, self.net, RELEASED)
        self._shifts = torch_generator("perf jitter")
        self._n, self._tasks = len(pool), torch_generator("perf tasks")

    def draw(self) -> tuple[list[list[int]], TaskBatch]:
        """Return the shifts that ours will draw next, and four tasks of its present pixels."""
        offsets = torch.randint(-2, 3, (self._n, 2), generator=self._shifts).tolist()
        with torch.no_grad():
            return offsets, self.dataset.sample_tasks(4, self.shape, self._tasks)

    def ours(self, tasks: TaskBatch) -> tuple[float, float]:
        """Make our meta-iteration; return summed inversion and outer losses before its steps."""
        gradient, terms = self.pixels.inversion_gradient()
        self.pixels.apply(gradient)
        self.optimiser.zero_grad(set_to_none=True)
        losses, _ = self.learner.outer_loss(dict(self.net.named_parameters()), tasks)
        total = losses.sum()
        total.backward()
        self.optimiser.step()
        return terms["inversion"].item() * self._n, total.item()

    def theirs(self, offsets: list[list[int]], tasks: TaskBatch) -> tuple[float, float]:
        """Make the reference's meta-iteration; return the same two losses."""
        return self.reference.pixel_step(offsets), self.reference.meta_step(tasks)

    def compare(self, rounds: int) -> dict[str, float]:
        """Return the median seconds of a meta-iteration of each, and their ratio.

        Both take turns, so that what else the machine does hits both; a first turn warms up.
        """
        seconds: dict[str, list[float]] = {"reference": [], "ours": []}
        for _ in range(rounds + 1):
            offsets, tasks = self.draw()
            seconds["reference"].append(self._seconds(self.theirs, offsets, tasks))
            seconds["ours"].append(self._seconds(self.ours, tasks))
        medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
        return {
            "reference_s": round(medians["reference"], 6),
            "ours_s": round(medians["ours"], 6),
            "ratio": round(medians["reference"] / medians["ours"], 2),
        }

    def _seconds(self, run: Callable[..., object], *given: object) -> float:
        wait_for(self._device)
        start = time.perf_counter()
        run(*given)
        wait_for(self._device)
        return time.perf_counter() - start
