"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import datetime
import functools
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from bench import registry
from bench.cells import UNCALIBRATED, Cell
from bench.contract import Choose, FitContext, Learner, Method, NetSpec, Pool
from bench.data.base import ImageData
from bench.data.tasks import TaskList, frozen_tasks, random_tasks
from bench.errors import BenchError
from bench.evaluate import EmbeddingTable, evaluate, fingerprint, inference_cost
from bench.execute.fits import Fit, fit_key, obtain_fit
from bench.execute.strategies import Strategies
from bench.learners.base import LearnerSettings
from bench.nets.base import initialise
from bench.nets.norm import holds_statistics
from bench.records import (
    RECORD,
    TASKS,
    Cost,
    FitSummary,
    PoolSummary,
    Record,
    Timing,
    content_hash,
    is_finished,
    mark_done,
    summarise,
    write_json,
    write_parquet,
    write_tasks,
)
from bench.runtime import describe_device, describe_environment
from bench.seeds import derive_seed, seed_global_state, torch_generator
from bench.teachers.pool import TeacherPlan, plan_pool
from bench.teachers.store import build_pool
from bench.timing import Stopwatch, SystemSampler

TEST_SEED = 0
"""Base seed of the frozen test tasks; the repetition never changes them."""

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


def _silent(label: str, done: int, total: int) -> None:
    pass


@dataclass
class Workplace:
    """Where and with what cells run; shared by the cells of one process.

    `embeddings` keeps the table of the last embedding learner, for the next cell's shots.
    """

    suite: str
    runs: Path
    cache: Path
    device: torch.device
    data: dict[str, ImageData]
    command: str
    progress: Progress = _silent
    pools: dict[str, Pool] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingTable] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the suite's cells."""
        return self.runs / self.suite

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each data set."""
        return {name: data.digest for name, data in self.data.items()}


class Skipped(Exception):
    """The method cannot serve this pool or shape; the message is the reason."""


def run_cell(cell: Cell, place: Workplace) -> Path:
    """Run one cell unless it is finished, and return its folder; never raises for its failure.

    Two processes that want the same cell wait for one another.
    """
    name = cell.hash(place.digests)
    folder = place.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder / f".{name}.lock"):
        if not has_result(folder):
            _run(cell, name, folder, place)
    return folder


def has_result(folder: Path) -> bool:
    """Tell whether a cell is finished for good: done or skipped, and every file intact."""
    if not is_finished(folder):
        return False
    text = (folder / RECORD).read_text(encoding="utf-8")
    return '"status": "failed"' not in text


def _run(cell: Cell, name: str, folder: Path, place: Workplace) -> None:
    (folder / "DONE").unlink(missing_ok=True)
    write_json(folder / "config.json", cell.model_dump(mode="json"))
    started = _now()
    logger = _file_logger(folder)
    logger.info("cell %s: %s", name, cell.label)
    parts: dict[str, Any] = {}
    method = registry.load("method", cell.method)
    with SystemSampler(place.device) as sampler:
        try:
            parts = _score(cell, folder, place, logger)
            status, reason = "done", None
        except Skipped as skipped:
            status, reason = "skipped", str(skipped)
        except BenchError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
            logger.error("%s", traceback.format_exc())
    if "timing" in parts:
        parts["timing"].peak_memory_bytes = sampler.peak_memory_bytes
    logger.info("%s%s", status, f": {reason}" if reason else "")
    _close(logger)
    record = Record(
        status=status,
        reason=reason,
        suite=place.suite,
        cell_hash=name,
        dataset_digests={d: place.data[d].digest for d in cell.datasets},
        knowledge=method.knowledge_of(method.Config.model_validate(cell.method_config)),
        variant=cell.variant,
        selection=cell.protocol.selection if parts.pop("validated", False) else "last",
        device=describe_device(place.device),
        environment=describe_environment(),
        command=_command(cell, place.command),
        warnings=_warnings(cell),
        started=started,
        ended=_now(),
        **cell.model_dump(mode="json"),
        **parts,
    )
    write_parquet(folder / "system.parquet", sampler.rows)
    write_json(folder / RECORD, record.model_dump(mode="json"))
    mark_done(folder)


def _score(cell: Cell, folder: Path, place: Workplace, logger: logging.Logger) -> dict[str, Any]:
    """Return the parts of the record that only a scored cell has."""
    seed_global_state(cell.method, cell.seed)
    method_class = registry.load("method", cell.method)
    method: Method = method_class()
    data = place.data[cell.datasets[0]]
    _refuse_by_plan(method_class, cell)
    pool = _pool(cell, place) if method.uses_pool else Pool([], "")
    net = NetSpec(cell.net, cell.n_way, data.image_size)
    strategies = Strategies(place.cache, place.device)
    make_context = functools.partial(
        _context, cell, method, pool, net, data, place.device, strategies
    )
    reason = method.skip(make_context())
    if reason:
        raise Skipped(reason)
    key = fit_key(method_class, cell, net, pool.sha256, data.digest)
    say = functools.partial(place.progress, "fit")
    fit = obtain_fit(place.cache, key, method, make_context, place.device, say, strategies)
    logger.info("fit %s: %.1f s%s", key, fit.seconds, " (reused)" if fit.reused else "")
    learner = calibrated(cell, method.learner(make_context(), fit.tensors))
    tasks = task_list(cell, data, "test", learner)
    table = _table(place, f"{key}/{cell.learner}", data)
    known = table.n_known
    split = data.splits["test"]
    per_image, per_task = inference_cost(learner, data, split, tasks, place.device)
    clock = Stopwatch(place.device)
    say = functools.partial(place.progress, "test tasks")
    with clock.running():
        accuracies = evaluate(learner, data, split, tasks, place.device, table, say)
    write_tasks(folder / TASKS, accuracies, tasks.classes)
    _copy_fit_files(fit, folder)
    logger.info("accuracy %.4f over %d tasks", accuracies.mean(), len(accuracies))
    return {
        "accuracy": summarise(accuracies),
        "task_list_sha256": tasks.sha256,
        "timing": _timing(fit, clock.seconds, len(accuracies), known > 0),
        "cost": Cost(
            params=learner.n_parameters,
            macs_per_query_image=per_image,
            macs_adapt_per_task=per_task,
            teacher_forward_images=fit.counters.get("teacher_forward_images", 0),
            queries=fit.counters.get("queries", 0),
        ),
        "pool": summarise_pool(pool) if len(pool) else None,
        "fit": FitSummary(sha256=fit.sha256, reused=fit.reused, strategies=fit.strategies),
        "validated": method.validates,
    }


def calibrated(cell: Cell, learner: Learner) -> Learner:
    """Return the learner as the cell calibrates it: itself, or wrapped.

    What a calibration draws for a task depends on the repetition and the task's place in the
    list, not on the method, so that methods are compared under the same draws.

    Raises:
        BenchError: the method's learner is of a kind that the calibration cannot serve.
    """
    if cell.calibration == UNCALIBRATED:
        return learner
    kind = registry.load("calibration", cell.calibration)
    reason = kind.refuse(type(learner))
    if reason:
        raise BenchError(
            f"calibration '{cell.calibration}' cannot serve method '{cell.method}': {reason}"
        )
    return kind().wrap(
        learner,
        kind.Config.model_validate(cell.calibration_config),
        lambda task: torch_generator("calibration", cell.calibration, cell.seed, task),
    )


def _refuse_by_plan(method: type[Method], cell: Cell) -> None:
    needs = method.needs_of(method.Config.model_validate(cell.method_config))
    if "same_architecture" in needs and len(set(cell.architectures)) > 1:
        raise Skipped(
            f"needs teachers of one architecture; the pool has {', '.join(cell.architectures)}"
        )
    if "shared_initialisation" in needs and not cell.protocol.shared_initialisation:
        raise Skipped(
            "needs teachers of a shared initialisation; the pool's are independent "
            "(set protocol.shared_initialisation)"
        )


def plan_teachers(cell: Cell, data: Mapping[str, ImageData]) -> list[TeacherPlan]:
    """Return the teachers that a cell's pool consists of."""
    first = data[cell.datasets[0]]
    return plan_pool(
        first.name,
        first.digest,
        len(first.splits["train"].classes),
        first.image_size,
        cell.architectures,
        cell.budget,
        cell.protocol,
        cell.seed,
    )


def _pool(cell: Cell, place: Workplace) -> Pool:
    plans = plan_teachers(cell, place.data)
    key = content_hash([plan.model_dump(mode="json") for plan in plans])
    if key not in place.pools:
        place.pools.clear()
        place.pools[key] = build_pool(place.cache, plans, place.data, place.device, place.progress)
    return place.pools[key]


def _table(place: Workplace, key: str, data: ImageData) -> EmbeddingTable:
    if key not in place.embeddings:
        place.embeddings.clear()
        place.embeddings[key] = EmbeddingTable(len(data.splits["test"].images), place.device)
    return place.embeddings[key]


def task_list(cell: Cell, data: ImageData, split_name: str, learner: Learner) -> TaskList:
    """Return the tasks of a split that a learner is scored on.

    Under `frozen` they depend on the data and the task shape alone. Under `redrawn` each
    evaluation, on validation as on test tasks, meets tasks of its own: their seed is derived from
    the cell and from the weights that are evaluated. So the test tasks that a checkpoint was chosen
    on under `test_max` are the ones that it is reported on, as published.
    """
    base = TEST_SEED
    if cell.protocol.task_list == "redrawn":
        weights = fingerprint(learner)
        base = derive_seed("redrawn", cell.method, cell.learner, cell.preset, cell.seed, weights)
    n_tasks = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    counts = data.splits[split_name].counts
    return frozen_tasks(data.name, split_name, counts, cell.shape, n_tasks, base)


def _context(
    cell: Cell,
    method: Method,
    pool: Pool,
    net: NetSpec,
    data: ImageData,
    device: torch.device,
    choose: Choose,
    log: Any = None,
    resume: dict[str, Any] | None = None,
    save: Callable[[int, dict[str, Any]], None] = lambda step, state: None,
) -> FitContext:
    """Build what the method is given; without a log it serves `skip` and `learner` only."""

    def build(generator: torch.Generator) -> torch.nn.Module:
        model = registry.build_net(net)
        initialise(model, generator)
        return model.to(device=device, memory_format=torch.channels_last)

    def settings(steps: int) -> LearnerSettings:
        return LearnerSettings(
            inner_lr=cell.protocol.inner_lr,
            inner_steps=steps,
            bn=cell.protocol.bn,
            first_order=cell.protocol.first_order,
        )

    def check_statistics(state: Mapping[str, torch.Tensor]) -> None:
        if cell.protocol.bn == "running" and not holds_statistics(state):
            raise Skipped(
                "bn = running needs stored statistics, and this meta-model holds none: it started "
                "from fresh weights, and meta-training stores none; use transductive or support"
            )

    def training_learner(model: torch.nn.Module) -> Any:
        check_statistics(model.state_dict())
        kind = registry.load("learner", cell.learner)
        return kind(model, settings(cell.protocol.inner_steps_train))

    def make_learner(state: Any) -> Learner:
        check_statistics(state)
        model = registry.build_net(net)
        model.load_state_dict(state)
        model = model.to(device=device, memory_format=torch.channels_last).requires_grad_(False)
        kind = registry.load("learner", cell.learner)
        return kind(model.eval(), settings(cell.protocol.inner_steps_test))

    def train_tasks(generator: torch.Generator, n: int) -> Any:
        split = data.splits["train"]
        tasks = random_tasks(split, cell.shape, n, generator)
        return tasks.batch(split, 0, n, data.mean, data.std, device)

    return FitContext(
        pool=pool,
        net=net,
        shape=cell.shape,
        learner=cell.learner,
        config=method.Config.model_validate(cell.method_config),
        budget=cell.budget,
        protocol=cell.protocol,
        device=device,
        log=log,
        generator=lambda purpose: torch_generator("fit", cell.method, purpose, cell.seed),
        build_net=build,
        training_learner=training_learner,
        make_learner=make_learner,
        validate=_validator(cell, data, device) if method.validates else None,
        resume=resume,
        save=save,
        train_tasks=train_tasks if method.knowledge == "real_data" else None,
        choose=choose,
    )


def _validator(
    cell: Cell, data: ImageData, device: torch.device
) -> Callable[[Learner], float] | None:
    """Return learner → mean accuracy on validation tasks, or on test tasks under `test_max`."""
    if cell.protocol.selection == "last":
        return None
    split = data.splits["val" if cell.protocol.selection == "val" else "test"]

    def score(learner: Learner) -> float:
        tasks = task_list(cell, data, split.name, learner)
        return float(np.mean(evaluate(learner, data, split, tasks, device)))

    return score


def _timing(fit: Fit, test_seconds: float, n_tasks: int, reused: bool) -> Timing:
    def rate(counter: str) -> float | None:
        amount = fit.counters.get(counter, 0)
        return amount / fit.seconds if amount and fit.seconds > 0 else None

    return Timing(
        fit_s=fit.seconds,
        train_tasks_per_s=rate("train_tasks"),
        pseudo_images_per_s=rate("pseudo_images"),
        test_s=test_seconds,
        test_tasks_per_s=n_tasks / test_seconds,
        embeddings_reused=reused,
    )


def summarise_pool(pool: Pool) -> PoolSummary:
    """Return what a record says of a pool."""
    kinds = [teacher.spec.architecture for teacher in pool]
    return PoolSummary(
        sha256=pool.sha256,
        n=len(pool),
        mean_accuracy=pool.mean_accuracy,
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        teachers=[
            {
                "name": teacher.name,
                "architecture": teacher.spec.architecture,
                "classes": list(teacher.class_names),
                "accuracy": teacher.accuracy,
                "sha256": teacher.sha256,
            }
            for teacher in pool
        ],
    )


def _copy_fit_files(fit: Fit, folder: Path) -> None:
    """Give the cell its own copy of the fit's curves and images: a record stands alone."""
    for path in [fit.folder / "curve.parquet", *sorted(fit.folder.glob("images/*.png"))]:
        if path.exists():
            target = folder / path.relative_to(fit.folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())


def _warnings(cell: Cell) -> list[str]:
    """Return what a reader should know before trusting the number."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def _command(cell: Cell, command: str) -> str:
    """Return a command that runs this cell and its like."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _file_logger(folder: Path) -> logging.Logger:
    logger = logging.getLogger(f"purer_bench.{folder.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
