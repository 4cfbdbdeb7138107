"""What a plan will take: forward passes of images, at the seconds that each network's takes.

The pass of each network at each image size is measured once per device, in half a second, and kept
in the cache. An estimate is good to a factor of two or so; it says minutes from hours, not minutes
from minutes.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import registry
from bench.contract import BACKWARD, Method, NetSpec, PlannedFit, PlannedTeacher
from bench.data.base import ImageData
from bench.execute.evaluate import TASKS_PER_CHUNK
from bench.execute.machine import describe_device, prepare_process
from bench.execute.scenario import meta_spec
from bench.nets.build import build_net
from bench.results.files import write_json
from bench.suites.cell import UNCALIBRATED, Cell
from bench.teachers.pool import TeacherSpec

PROCESS_BYTES = 2**30
"""What a process that scores glyphs takes: libraries, a pool, data."""

GRADIENTS = 1.5
"""A backward pass takes half as much memory again as what the forward pass has kept for it."""

SECOND_ORDER = 2.0
"""The same where it goes back through an inner loop's."""

INVERSION_BYTES = 2 * 2**30
"""What the activations of a teacher's pseudo images may take at once: PURER's `teacher_memory_mb`.
"""

MOST_IMAGES = 64
"""Images of a measured pass: about a task's, so that what does not fit a cache is slow here too."""

FEWEST_PASSES = 4
"""Passes that the fastest is chosen from: on a machine that has just started, the first ones to
touch memory are up to ten times as slow."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of the pool (once for all cells that share it), the fit, the test; bytes at peak.

    `embedding_s`: where the test is mostly embeddings, the seconds of those of each data set, which
    the cells of other shots and other test tasks share; `test_s` is then 0.
    """

    pool_s: float
    fit_s: float
    test_s: float
    embedding_s: Mapping[str, float]
    memory_bytes: int


class PassTimes:
    """Seconds that one image's forward pass of a network takes, measured once for a device.

    Args:
        device: where the networks run.
        cache: the cache folder, which keeps what was measured in `passes.json`.
    """

    def __init__(self, device: torch.device, cache: Path):
        self._device, self._path = device, cache / "passes.json"
        self._where = describe_device(device).model_dump_json()
        try:
            self._known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def __call__(self, spec: NetSpec) -> float:
        """Return the seconds of one image's pass."""
        name = f"{spec.architecture} {spec.image_size}"
        here = self._known.setdefault(self._where, {})
        if name not in here:
            here[name] = _measure(spec, self._device)
            write_json(self._path, self._known)
        return here[name]


def _measure(spec: NetSpec, device: torch.device, seconds: float = 0.2) -> float:
    """Return the seconds of one image in the fastest of some passes.

    On a CPU they are counted in the process's own time, so that other processes matter less.
    """
    prepare_process()
    threads = torch.get_num_threads()

    def clock() -> float:
        return time.process_time() / threads if device.type == "cpu" else time.perf_counter()

    net = build_net(spec).to(device, memory_format=torch.channels_last).eval()

    def forward(n_images: int) -> float:
        images = torch.zeros(n_images, 3, spec.image_size, spec.image_size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        start = clock()
        with torch.inference_mode():
            net(images).sum().item()
        return (clock() - start) / n_images

    forward(1)
    n_images = max(1, min(MOST_IMAGES, round(seconds / 2 / forward(1))))
    start, found = clock(), [forward(n_images)]
    while clock() - start < seconds or len(found) < FEWEST_PASSES:
        found.append(forward(n_images))
    return min(found)


def _calibration_passes(cell: Cell) -> int:
    """Return the forward passes of one image that calibrating to one task takes."""
    if cell.calibration == UNCALIBRATED:
        return 0
    calibration = registry.load("calibration", cell.calibration)
    config = calibration.Config.model_validate(cell.calibration_config)
    return calibration().image_passes(config, cell.shape)


@dataclass(frozen=True)
class TeacherCost(PlannedTeacher):
    """What estimates need of one teacher: besides what is planned, how it is still to be trained.

    All counts are 0 for a teacher that is there.
    """

    training_images: int = 0
    held_out_images: int = 0
    epochs: int = 0
    batch_size: int = 0

    @property
    def passes(self) -> int:
        """Forward passes of one image that training and evaluating it take."""
        training = self.training_images * self.epochs * (1 + BACKWARD)
        return training + self.held_out_images * max(1, self.epochs)

    @property
    def training_bytes(self) -> float:
        """Memory that training takes: images as floats, twice, and a batch's activations."""
        images = 2 * (self.training_images + self.held_out_images) * self.spec.image_size**2 * 3 * 4
        if not self.epochs:
            return images
        batch = min(self.training_images, self.batch_size)
        return images + GRADIENTS * batch * _kept_bytes(self.spec)


def teacher_costs(
    plans: Sequence[TeacherSpec], stored: Sequence[bool], data: Mapping[str, ImageData]
) -> list[TeacherCost]:
    """Return the costs of planned teachers; stored ones need no more training."""
    costs = []
    for plan, there in zip(plans, stored, strict=True):
        counts = data[plan.dataset].splits["train"].counts
        cost = TeacherCost(plan.spec, len(plan.classes))
        if not there:
            images, recipe = sum(int(counts[c]) for c in plan.classes), plan.recipe
            trained = round(images * recipe.train_fraction)
            left = trained, images - trained, recipe.epochs, recipe.batch_size
            cost = TeacherCost(plan.spec, len(plan.classes), *left)
        costs.append(cost)
    return costs


def estimate_cell(
    cell: Cell,
    data: Mapping[str, ImageData],
    teachers: Sequence[TeacherCost],
    seconds: Callable[[NetSpec], float],
) -> Estimate:
    """Estimate one cell.

    Args:
        cell, data: the cell and the data sets by name.
        teachers: the costs of its pool.
        seconds: of one image's forward pass of a network, as `PassTimes`.
    """
    method = registry.load("method", cell.method)
    net = meta_spec(cell, [data[name] for name in cell.datasets])
    side = max(data[name].image_size for name in cell.datasets)
    config = method.Config.model_validate(cell.method_config)
    if method.uses_pool and not teachers:  # which the run refuses
        return Estimate(0.0, 0.0, 0.0, {}, PROCESS_BYTES)
    planned = PlannedFit(teachers, net, cell.shape, config, cell.budget, cell.protocol)
    memory = _memory(cell, method, planned, side, teachers)
    pool = sum(seconds(one.spec) * one.passes for one in teachers)

    def of_teachers(passes: Sequence[float]) -> float:
        return sum(n * seconds(t.spec) for n, t in zip(passes, teachers, strict=True))

    if method.knowledge == "features":
        an_image = of_teachers(method.embedding_passes(planned))
        return Estimate(pool, 0.0, 0.0, _embeddings(cell, data, an_image), memory)
    one_pass = seconds(net)
    test, embeddings = 0.0, {}
    if cell.learner == "centroids":  # a student's
        embeddings = _embeddings(cell, data, one_pass)
    else:
        one_task = _task_passes(cell, cell.protocol.inner_steps_test) + _calibration_passes(cell)
        test = cell.n_test_tasks * one_task * one_pass
    passes = method.fit_passes(planned)
    fit = of_teachers(passes.teachers) + passes.net * one_pass
    if method.validates:
        steps = method.meta_iterations(config, cell.budget)
        fit += _meta_training_passes(cell, steps) * one_pass
    return Estimate(pool, fit, test, embeddings, memory)


def _memory(
    cell: Cell,
    method: type[Method],
    fit: PlannedFit,
    side: int,
    teachers: Sequence[TeacherCost],
) -> int:
    """Return the bytes at peak: the process and its teachers, and the greediest of what it does
    one after the other: train a teacher, invert one, meta-train, distil through an inner loop,
    test."""
    net = fit.net
    images = cell.n_way * (cell.k_shot + cell.n_query)
    doing = [3.0 * TASKS_PER_CHUNK * images * side**2 * 3 * 4]
    doing += [one.training_bytes for one in teachers]
    if method.validates:
        order = SECOND_ORDER if cell.learner == "maml" else GRADIENTS
        doing.append(order * cell.protocol.tasks_per_meta_batch * images * _kept_bytes(net))
    if passes := method.kept_passes(fit):
        doing.append(GRADIENTS * passes * _kept_bytes(net))
    if method.knowledge_of(fit.config) == "inversion":
        per_class = cell.k_shot + cell.n_query
        blocks = (per_class * one.n_classes * _kept_bytes(one.spec) for one in teachers)
        doing += [min(INVERSION_BYTES, GRADIENTS * block) for block in blocks]
    return round(PROCESS_BYTES + sum(map(_held_bytes, teachers)) + max(doing))


@functools.cache
def _kept_bytes(spec: NetSpec) -> int:
    """Return what a network keeps of one image's forward pass until its gradients are known."""
    try:
        return _kept_on("meta", spec)
    except (RuntimeError, TypeError, ValueError):  # its forward pass looks at values
        return _kept_on("cpu", spec)


def _kept_on(device: str, spec: NetSpec) -> int:
    kept, n_images = {}, 2
    with torch.device(device):
        net = build_net(spec)
        weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            net(torch.zeros(n_images, 3, spec.image_size, spec.image_size))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // n_images


def _held_bytes(teacher: TeacherCost) -> int:
    """Return the bytes of a teacher's weights: in the network, as stored, and while written."""
    return 3 * 4 * _n_parameters(teacher.spec)


@functools.cache
def _n_parameters(spec: NetSpec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_net(spec).parameters())


def _embeddings(cell: Cell, data: Mapping[str, ImageData], an_image: float) -> dict[str, float]:
    """Return the seconds of each data set's embeddings: of its distinct test images, at most."""
    n_tasks = cell.n_test_tasks / len(cell.tested)
    drawn = math.ceil(n_tasks) * cell.n_way * (cell.k_shot + cell.n_query)
    return {
        name: min(len(data[name].splits["test"].images), drawn) * an_image for name in cell.tested
    }


def _meta_training_passes(cell: Cell, steps: int) -> int:
    """Return the forward passes of one image that meta-training and its validation take."""
    a_task = _task_passes(cell, cell.protocol.inner_steps_train) * (1 + BACKWARD)
    a_validation = _validation_tasks(cell) * _task_passes(cell, cell.protocol.inner_steps_test)
    evaluations = 1 + -(-steps // cell.budget.validate_every)
    return steps * cell.protocol.tasks_per_meta_batch * a_task + evaluations * a_validation


def _task_passes(cell: Cell, inner_steps: int) -> int:
    """Return the forward passes of one image that adapting to a task and predicting it take."""
    support = cell.n_way * cell.k_shot
    if cell.learner == "maml":
        support *= inner_steps * (1 + BACKWARD)
    return support + cell.n_way * cell.n_query


def _validation_tasks(cell: Cell) -> int:
    """Return the tasks of one evaluation during meta-training."""
    tasks = {"val": cell.budget.n_val_tasks, "test_max": cell.n_test_tasks, "last": 0}
    return tasks[cell.protocol.selection]
