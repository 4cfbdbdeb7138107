"""What a plan will take: counted in multiply-accumulates, turned into seconds by a measured rate.

The rate is measured once per device on a Conv4 forward pass of 0.3 s and kept in the cache. An
estimate is good to a factor of two or so; it says minutes from hours, not minutes from minutes.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import registry
from bench.cells import UNCALIBRATED, Cell
from bench.contract import NetSpec
from bench.data.base import ImageData
from bench.nets.norm import batch_norm
from bench.records import write_json
from bench.runtime import describe_device, prepare_process
from bench.teachers.pool import TeacherPlan

BACKWARD = 2
"""A backward pass costs about two forward passes."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of the pool (once for all cells that share it), the fit, the test; bytes at peak."""

    pool_s: float
    fit_s: float
    test_s: float
    memory_bytes: int


@functools.cache
def macs_per_image(spec: NetSpec) -> int:
    """Return the multiply-accumulates of one image's forward pass."""
    net = registry.build_net(spec)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, spec.image_size, spec.image_size))
    return counter.get_total_flops() // 2


def device_rate(device: torch.device, cache: Path) -> float:
    """Return the device's multiply-accumulates a second on Conv4, measured once."""
    key = describe_device(device).model_dump_json()
    path = cache / "rates.json"
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rates = {}
    if key not in rates:
        rates[key] = _measure(device)
        write_json(path, rates)
    return rates[key]


def _measure(device: torch.device, seconds: float = 0.3) -> float:
    prepare_process()
    spec = NetSpec("conv4", 5, 32)
    net = registry.build_net(spec).to(device, memory_format=torch.channels_last)
    images = torch.zeros(256, 3, 32, 32, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            net(images, batch_norm).sum().item()

    forward()
    start, passes = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        forward()
        passes += 1
    return passes * len(images) * macs_per_image(spec) / elapsed


def _calibration_passes(cell: Cell) -> int:
    """Return the forward passes of one image that calibrating to one task takes."""
    if cell.calibration == UNCALIBRATED:
        return 0
    calibration = registry.load("calibration", cell.calibration)
    config = calibration.Config.model_validate(cell.calibration_config)
    return calibration().image_passes(config, cell.shape)


@dataclass(frozen=True)
class TeacherCost:
    """What estimates need of one teacher: its pass, its classes, and passes left to train it."""

    macs: int
    n_classes: int
    training_images: int = 0


def teacher_costs(
    plans: Sequence[TeacherPlan], stored: Sequence[bool], data: Mapping[str, ImageData]
) -> list[TeacherCost]:
    """Return the costs of planned teachers; stored ones need no more training."""
    costs = []
    for plan, there in zip(plans, stored, strict=True):
        counts = data[plan.dataset].splits["train"].counts
        images = 0 if there else sum(int(counts[c]) for c in plan.classes) * plan.recipe.epochs
        costs.append(TeacherCost(macs_per_image(plan.spec), len(plan.classes), images))
    return costs


def estimate_cell(
    cell: Cell, data: Mapping[str, ImageData], teachers: Sequence[TeacherCost], rate: float
) -> Estimate:
    """Estimate one cell.

    Args:
        cell, data: the cell and the data sets by name.
        teachers: the costs of its pool.
        rate: from `device_rate`.
    """
    sets = [data[name] for name in cell.datasets]
    sizes = [one.image_size for one in sets]
    net = sum(macs_per_image(NetSpec(cell.net, cell.n_way, size)) for size in sizes) // len(sizes)
    pool = sum(t.macs * t.training_images * (1 + BACKWARD) for t in teachers)
    images_per_task = cell.n_way * (cell.k_shot + cell.n_query)
    method = registry.load("method", cell.method)
    one_task = _task_passes(cell, cell.protocol.inner_steps_test) * net
    test = cell.n_test_tasks * (one_task + _calibration_passes(cell) * net)
    if method.knowledge == "features":
        n_images = sum(len(data[name].splits["test"].images) for name in cell.tested)
        count = min(n_images, cell.n_test_tasks * images_per_task)
        test = count * sum(t.macs for t in teachers)
    fit = 0
    if method.validates:
        oracle = method.knowledge == "real_data"
        steps = cell.budget.oracle_iterations if oracle else _meta_iterations(cell)
        tasks = _task_passes(cell, cell.protocol.inner_steps_train) * net * (1 + BACKWARD)
        evaluations = 1 + -(-steps // cell.budget.validate_every)
        fit = steps * cell.protocol.tasks_per_meta_batch * tasks
        fit += evaluations * _validation_tasks(cell) * one_task
        if method.knowledge == "inversion":
            pixel_steps = -(-steps // cell.method_config.get("pixel_every", 1))
            pixel_steps += cell.method_config.get("pixel_warmup", 0)
            fit += pixel_steps * _pixel_step(cell, teachers)
    memory = 500 * 2**20 + 40 * images_per_task * 3 * max(sizes) ** 2 * 4 * 32
    return Estimate(pool / rate, fit / rate, test / rate, memory)


def _meta_iterations(cell: Cell) -> int:
    """Return the meta-iterations that a method's own configuration makes of the budget's."""
    factor = cell.method_config.get("meta_iterations_factor", 1)
    return cell.method_config.get("meta_iterations") or cell.budget.meta_iterations * factor


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


def _pixel_step(cell: Cell, teachers: Sequence[TeacherCost]) -> float:
    """Return the multiply-accumulates of one pixel step, of an average draw of teachers."""
    per_class = cell.protocol.pseudo_images_per_class or cell.k_shot + cell.n_query
    whole = sum(t.macs * t.n_classes * per_class * (1 + BACKWARD) for t in teachers)
    drawn = cell.protocol.teachers_per_iteration or len(teachers)
    return whole * min(1.0, drawn / max(1, len(teachers)))
