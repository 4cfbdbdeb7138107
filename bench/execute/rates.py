"""Measured times of cells and the properties that they depend on, from records and package.

`rates.json` holds the stored results' rates, in forward passes of the meta-model instead of
seconds, so that one measured pass turns them into another machine's seconds.
`tests/execute/write_rates.py` makes it.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import registry
from bench.contract import Budget, Method, NetSpec, ProtocolConstants, TaskShape
from bench.errors import BenchError
from bench.nets.build import check_net
from bench.results.files import content_hash
from bench.results.record import Device, Record
from bench.results.store import RECORD, read_record
from bench.suites.cell import Cell, settings_identity
from bench.teachers.pool import WAYS


class Work(NamedTuple):
    """The properties that determine how long a cell takes, the most important first.

    `architectures` are the distinct ones of the pool, `config` is a digest of the method's
    configuration, without settings that it gained since and that have their default; `images` is
    the number in one task, `iterations` the meta-iterations or steps of the fit.
    """

    net: str
    learner: str
    calibration: str
    method: str
    architectures: tuple[str, ...]
    image_size: int
    preset: str
    config: str
    n_teachers: int
    images: int
    iterations: int
    variant: str

    @property
    def spec(self) -> NetSpec:
        """The meta-model."""
        return NetSpec(self.net, WAYS, self.image_size)


class Took(NamedTuple):
    """The measured times of some work; None if not measured.

    `fit` and `task` (one test task) are seconds, or passes of the meta-model on one image;
    `repeated_task` is a task whose images an earlier cell had embedded. `grows`: the fit was a
    loop, and so grows with the number of its iterations. `memory` is the peak in bytes.
    `here`: in seconds, and measured on this machine. `undisturbed`: without what other programs
    took.
    """

    work: Work
    fit: float | None
    grows: bool
    task: float | None
    repeated_task: float | None
    memory: int | None
    here: bool = False
    undisturbed: bool = False


def describe_work(source: Cell | Record, image_size: int, architectures: Iterable[str]) -> Work:
    """Return the properties that determine how long a cell, or the cell of a record, takes.

    Args:
        source: the cell or the record.
        image_size: side of the meta-model's images, px.
        architectures: of each teacher; none for a method that uses no pool.

    Raises:
        BenchError: the method is not installed.
        ValueError: its settings are none of the installed version.
    """
    budget, teachers = Budget.model_validate(source.budget), list(architectures)
    iterations = budget.meta_iterations if teachers else budget.oracle_iterations
    return Work(
        net=source.net,
        image_size=image_size,
        learner=source.learner,
        calibration=source.calibration,
        method=source.method,
        architectures=tuple(sorted(set(teachers))),
        preset=source.preset,
        config=content_hash(settings_identity("method", source.method, source.method_config))[:8],
        n_teachers=len(teachers),
        images=source.n_way * (source.k_shot + source.n_query),
        iterations=_length(source) or iterations,
        variant=source.variant,
    )


def _length(source: Cell | Record) -> int | None:
    """Return the meta-iterations or steps that the method says its fit has, None without."""
    method: type[Method] = registry.load("method", source.method)
    config = method.Config.model_validate(source.method_config)
    shape = TaskShape(source.n_way, source.k_shot, source.n_query)
    budget = Budget.model_validate(source.budget)
    protocol = ProtocolConstants.model_validate(source.protocol)
    derived = method.in_force(config, shape, budget, protocol)
    return derived.get("meta_iterations", derived.get("steps"))


def took(record: Record, sizes: Mapping[str, int]) -> Took | None:
    """Return what a record says, in seconds: of a single thread of a CPU, where known, CPU seconds.

    So a machine that was busy then does not spoil the plans of later runs. The result is None where
    the cell was not scored, or on images of unknown size.

    Args:
        record: the record.
        sizes: image side of each data set, px.
    """
    timing, pool = record.timing, record.pool
    test_s = record.test_seconds
    if record.fit is None or test_s is None or not set(record.datasets) <= sizes.keys():
        return None
    size = max(sizes[name] for name in record.datasets)
    architectures = [one["architecture"] for one in pool.teachers] if pool else []
    task, reused = test_s / record.n_test_tasks, timing.embeddings_reused
    return Took(
        work=describe_work(record, size, architectures),
        fit=None if record.fit.reused else record.fit_seconds,
        grows=timing.train_tasks_per_s is not None or _length(record) is not None,
        task=None if reused else task,
        repeated_task=task if reused else None,
        memory=timing.peak_memory_bytes,
        undisturbed=record.undisturbed,
    )


def took_here(runs: Path, device: Device, sizes: Mapping[str, int]) -> list[Took]:
    """Return the times in the records of a runs folder that were made on a device."""
    found = []
    for path in sorted(runs.glob(f"*/*/{RECORD}")):
        with contextlib.suppress(BenchError, ValueError):  # what cannot be read tells nothing
            record = read_record(path.parent).record
            check_net(record.net)
            if record.device == device and (one := took(record, sizes)):
                found.append(one._replace(here=True))
    return found


def trained_here(cache: Path, device: Device) -> dict[tuple[str, int], float]:
    """Return the seconds per training image and epoch of the teachers trained on a device.

    Medians, by architecture and image side.
    """
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for path in cache.glob("teachers/*/teacher.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
            card = json.loads(path.read_text(encoding="utf-8"))
            if (card["device"], card["threads"]) == (device.type, device.threads):
                kind = card["plan"]["architecture"], card["plan"]["image_size"]
                seconds = 1 / card["images_per_s"]  # none for teachers that are not to be trained
                found[kind].append(seconds)
    return {kind: statistics.median(seconds) for kind, seconds in found.items()}


def stored_rates() -> tuple[list[Took], float]:
    """Return the rates in the package, in passes, and those of training a teacher.

    The second is in passes per training image and epoch.
    """
    text = (importlib.resources.files("bench.execute") / "rates.json").read_text(encoding="utf-8")
    content, rates = json.loads(text), []
    for row in content["rows"]:
        work = Work._make(row[: len(Work._fields)])
        work = work._replace(architectures=tuple(work.architectures))
        rates.append(Took(work, *row[len(Work._fields) :]))
    return rates, content["training_passes"]
