"""What follows from a cell's scenario: teachers, images, tasks per data set; what a record says.

With one data set (SS, SH) all is that set's. With several (MH) the pool cycles through data sets
and architectures, images keep their own size, and all are normalised alike, by ImageNet's mean and
standard deviation unless the sets agree on others; so one learner meets the tasks of all.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench import registry
from bench.contract import Method, NetSpec, Pool
from bench.data.base import IMAGENET_MEAN, IMAGENET_STD, ImageData
from bench.execute.machine import describe_environment
from bench.results.record import PoolSummary
from bench.suites.cell import Cell, PoolChoice
from bench.teachers.pool import TeacherSpec, plan_pool
from bench.teachers.store import is_stored

if TYPE_CHECKING:
    from bench.execute.plan import Request, ResolvedSuite

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""


def plan_teachers(cell: Cell, data: Mapping[str, ImageData]) -> list[TeacherSpec]:
    """Return the teachers of a cell's pool; none if the pool was imported.

    With several data sets, teacher number i is one of set i mod D; within a set architectures
    cycle, from another start for each set.
    """
    if cell.pool is not None:
        return []
    n_sets = len(cell.datasets)
    whole = cell.budget if n_sets == 1 else cell.budget.model_copy(update={"max_teachers": None})
    pools = []
    for number, name in enumerate(cell.datasets):
        one, start = data[name], number % len(cell.architectures)
        architectures = cell.architectures[start:] + cell.architectures[:start]
        n_classes = len(one.splits["train"].classes)
        pools.append(
            plan_pool(
                one.name,
                one.digest,
                n_classes,
                one.image_size,
                architectures,
                whole,
                cell.protocol,
                cell.seed,
            )
        )
    turns = itertools.chain.from_iterable(itertools.zip_longest(*pools))
    return [plan for plan in turns if plan is not None][: cell.budget.max_teachers]


def refused_by_plan(method: type[Method], cell: Cell) -> str | None:
    """Return why a method cannot serve a cell's pool, as far as a plan shows it, or None."""
    needs = method.needs_of(method.Config.model_validate(cell.method_config))
    if "same_architecture" in needs and len(set(cell.architectures)) > 1:
        return f"needs teachers of one architecture; the pool has {', '.join(cell.architectures)}"
    if "shared_initialisation" in needs and not cell.protocol.shared_initialisation:
        return (
            "needs teachers of a shared initialisation; the pool's are independent "
            "(set protocol.shared_initialisation)"
        )
    return None


def may_train(cell: Cell) -> bool:
    """Tell whether a cell may need teachers that a run trains."""
    method = registry.load("method", cell.method)
    return method.uses_pool and cell.pool is None and refused_by_plan(method, cell) is None


def n_lacking(plan: ResolvedSuite, cells: Sequence[Cell], request: Request) -> int:
    """Return how many teachers some cells need that are not stored."""
    training = (cell for cell in cells if may_train(cell) and set(cell.datasets) <= set(plan.data))
    pools = {cell.pool_settings: cell for cell in training}
    wanted = {
        teacher.model_dump_json(): teacher
        for cell in pools.values()
        for teacher in plan_teachers(cell, plan.data)
    }
    return sum(not is_stored(request.cache, teacher) for teacher in wanted.values())


def scenario_data(cell: Cell, data: Mapping[str, ImageData]) -> list[ImageData]:
    """Return the cell's data sets in order, with the same normalisation."""
    sets = [data[name] for name in cell.datasets]
    if len({(one.mean, one.std) for one in sets}) > 1:
        sets = [dataclasses.replace(one, mean=IMAGENET_MEAN, std=IMAGENET_STD) for one in sets]
    return sets


def tested_data(cell: Cell, sets: Sequence[ImageData]) -> list[ImageData]:
    """Return the cell's data sets whose test tasks are scored."""
    return [one for one in sets if one.name in cell.tested]


def meta_spec(cell: Cell, sets: Sequence[ImageData]) -> NetSpec:
    """Return the meta-model's network: at the largest image size, where there are several."""
    return NetSpec(cell.net, cell.n_way, max(one.image_size for one in sets))


def summarise_pool(pool: Pool, imported: PoolChoice | None = None) -> PoolSummary:
    """Return the record's summary of a pool."""
    kinds = [teacher.spec.architecture for teacher in pool]
    return PoolSummary(
        name=imported.name if imported else None,
        sha256=pool.sha256,
        n=len(pool),
        mean_accuracy=pool.mean_accuracy,
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        teachers=[
            {
                "name": teacher.name,
                "dataset": teacher.dataset,
                "architecture": teacher.spec.architecture,
                "image_size": teacher.spec.image_size,
                "classes": list(teacher.class_names),
                "accuracy": teacher.accuracy,
                "sha256": teacher.sha256,
                "code": teacher.code,
                "threads": teacher.threads,
            }
            for teacher in pool
        ],
    )


def warnings_of(cell: Cell) -> list[str]:
    """Return the warnings of the record."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
    if share := cell.protocol.untrustworthy_share:
        deceit = cell.protocol.untrustworthy_kind
        found.append(f"{share:.0%} of the teachers are untrustworthy on purpose ({deceit})")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def command_for(cell: Cell, command: str) -> str:
    """Return a command that re-runs this cell and its siblings."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"
