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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import registry
from bench.cells import UNCALIBRATED, Cell
from bench.contract import Method, NetSpec
from bench.data.base import ImageData
from bench.evaluate import TASKS_PER_CHUNK
from bench.execute.scenario import meta_spec
from bench.records import write_json
from bench.runtime import describe_device, prepare_process
from bench.teachers.pool import TeacherPlan

BACKWARD = 2
"""A backward pass costs about two forward passes."""

PROCESS_BYTES = 2**30
"""What a process that scores glyphs takes: libraries, a pool, data."""

ACTIVATIONS_PER_PIXEL = 1000
"""Bytes that a network keeps of each pixel of an image until its gradient is known: Conv4's 500,
twice for the second order; a ResNet's are about as many at the first."""

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

    net = registry.build_net(spec).to(device, memory_format=torch.channels_last).eval()

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
class TeacherCost:
    """What estimates need of one teacher: its network, its classes, passes left to train it."""

    spec: NetSpec
    n_classes: int
    training_images: int = 0
    evaluated_images: int = 0


def teacher_costs(
    plans: Sequence[TeacherPlan], stored: Sequence[bool], data: Mapping[str, ImageData]
) -> list[TeacherCost]:
    """Return the costs of planned teachers; stored ones need no more training."""
    costs = []
    for plan, there in zip(plans, stored, strict=True):
        counts = data[plan.dataset].splits["train"].counts
        images = 0 if there else sum(int(counts[c]) for c in plan.classes)
        trained = images * plan.recipe.train_fraction
        evaluations = max(1, plan.recipe.epochs)  # on the held-out images
        passes = round(trained * plan.recipe.epochs), round((images - trained) * evaluations)
        costs.append(TeacherCost(plan.spec, len(plan.classes), *passes))
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
    memory = _memory(cell, method, side) + sum(map(_held_bytes, teachers))
    pool = sum(
        seconds(t.spec) * (t.training_images * (1 + BACKWARD) + t.evaluated_images)
        for t in teachers
    )
    if method.knowledge == "features":
        an_image = _embedding_seconds(cell, teachers, seconds)
        return Estimate(pool, 0.0, 0.0, _embeddings(cell, data, an_image), memory)
    one_pass = seconds(net)
    test, embeddings = 0.0, {}
    if cell.learner == "centroids":  # a student's
        embeddings = _embeddings(cell, data, one_pass)
    else:
        one_task = _task_passes(cell, cell.protocol.inner_steps_test) + _calibration_passes(cell)
        test = cell.n_test_tasks * one_task * one_pass
    fit = _inversion_seconds(cell, teachers, seconds)
    fit += _distillation_seconds(cell, teachers, seconds, one_pass)
    if method.validates:
        fit += _meta_training_passes(cell, _meta_iterations(cell, method)) * one_pass
    return Estimate(pool, fit, test, embeddings, memory)


def _memory(cell: Cell, method: type[Method], side: int) -> int:
    """Return the bytes at peak: the process, a chunk of test tasks, a fit's activations."""
    pixels = cell.n_way * (cell.k_shot + cell.n_query) * side**2
    total = PROCESS_BYTES + 3 * TASKS_PER_CHUNK * pixels * 3 * 4
    if method.validates:
        total += cell.protocol.tasks_per_meta_batch * pixels * ACTIVATIONS_PER_PIXEL
    if method.validates and method.knowledge == "inversion":
        total += 2 * pixels * ACTIVATIONS_PER_PIXEL
    return total


def _held_bytes(teacher: TeacherCost) -> int:
    """Return the bytes of a teacher's weights: in the network, as stored, and while written."""
    return 3 * 4 * _n_parameters(teacher.spec)


@functools.cache
def _n_parameters(spec: NetSpec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in registry.build_net(spec).parameters())


def _embeddings(cell: Cell, data: Mapping[str, ImageData], an_image: float) -> dict[str, float]:
    """Return the seconds of each data set's embeddings: of its distinct test images, at most."""
    n_tasks = cell.n_test_tasks / len(cell.tested)
    drawn = math.ceil(n_tasks) * cell.n_way * (cell.k_shot + cell.n_query)
    return {
        name: min(len(data[name].splits["test"].images), drawn) * an_image for name in cell.tested
    }


def _embedding_seconds(
    cell: Cell, teachers: Sequence[TeacherCost], seconds: Callable[[NetSpec], float]
) -> float:
    """Return the seconds of one image's embedding: all teachers', or that of one of them."""
    whole = sum(seconds(t.spec) for t in teachers) * _views(cell)
    return whole / len(teachers) if "teacher" in cell.method_config else whole


def _views(cell: Cell) -> int:
    return 2 if cell.method_config.get("views") == "mirrored" else 1


def _meta_iterations(cell: Cell, method: type[Method]) -> int:
    """Return the meta-iterations that a method's own configuration makes of the budget's."""
    if method.knowledge == "real_data":
        return cell.method_config.get("meta_iterations") or cell.budget.oracle_iterations
    factor = cell.method_config.get("meta_iterations_factor", 1)
    return cell.method_config.get("meta_iterations") or cell.budget.meta_iterations * factor


def _meta_training_passes(cell: Cell, steps: int) -> int:
    """Return the forward passes of one image that meta-training and its validation take."""
    a_task = _task_passes(cell, cell.protocol.inner_steps_train) * (1 + BACKWARD)
    a_validation = _validation_tasks(cell) * _task_passes(cell, cell.protocol.inner_steps_test)
    evaluations = 1 + -(-steps // cell.budget.validate_every)
    return steps * cell.protocol.tasks_per_meta_batch * a_task + evaluations * a_validation


def _inversion_seconds(
    cell: Cell, teachers: Sequence[TeacherCost], seconds: Callable[[NetSpec], float]
) -> float:
    """Return the seconds of a fit's pixel steps; 0 where the method inverts nothing."""
    method, config = registry.load("method", cell.method), cell.method_config
    if method.knowledge_of(method.Config.model_validate(config)) != "inversion":
        return 0.0

    def a_step(images_per_class: int, inverted: Sequence[TeacherCost]) -> float:
        images = (seconds(t.spec) * t.n_classes * images_per_class for t in inverted)
        return sum(images) * (1 + BACKWARD)

    if "inversion_steps" in config:
        inverted = _largest_group(teachers) if config.get("group") == "largest" else teachers
        return config["inversion_steps"] * a_step(config["images_per_class"], inverted)
    per_class = (
        config.get("pseudo_images_per_class")
        or cell.protocol.pseudo_images_per_class
        or cell.k_shot + cell.n_query
    )
    steps = -(-_meta_iterations(cell, method) // config.get("pixel_every", 1))
    drawn = cell.protocol.teachers_per_iteration or len(teachers)
    share = min(1.0, drawn / max(1, len(teachers)))
    return (steps + config.get("pixel_warmup", 0)) * a_step(per_class, teachers) * share


def _distillation_seconds(
    cell: Cell,
    teachers: Sequence[TeacherCost],
    seconds: Callable[[NetSpec], float],
    one_pass: float,
) -> float:
    """Return the seconds of a student's steps and, at most, of its teachers' answers; 0 where the
    method has no student."""
    config = cell.method_config
    if "steps_per_meta_iteration" not in config:
        return 0.0
    scaled = config["steps_per_meta_iteration"] * cell.budget.meta_iterations
    images = (config["steps"] or min(config["most_steps"], scaled)) * config["batch"]
    answers = sum(seconds(t.spec) for t in teachers) * (2 if config["mirrored"] else 1)
    return images * (one_pass * (1 + BACKWARD) + answers / config["passes"])


def _largest_group(teachers: Sequence[TeacherCost]) -> list[TeacherCost]:
    """Return the teachers of the most frequent network; the first of equally frequent ones."""
    kinds = Counter(t.spec for t in teachers)
    return [t for t in teachers if t.spec == max(kinds, key=kinds.__getitem__)]


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
