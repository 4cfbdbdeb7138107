"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import datetime
import functools
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from bench import registry
from bench.cells import UNCALIBRATED, Cell, PoolChoice
from bench.contract import Choose, FitContext, Learner, Method, NetSpec, Pool
from bench.data.base import ImageData
from bench.data.tasks import TaskList, frozen_tasks, random_tasks
from bench.errors import BenchError
from bench.evaluate import EmbeddingTable, evaluate, fingerprint, inference_cost
from bench.execute.fits import Fit, fit_key, obtain_fit
from bench.execute.scenario import (
    meta_spec,
    plan_teachers,
    refused_by_plan,
    scenario_data,
    shares,
    tested_data,
)
from bench.execute.strategies import Strategies
from bench.learners.base import LearnerSettings
from bench.learners.resized import resize_tasks, resized
from bench.nets.base import initialise
from bench.nets.norm import holds_statistics
from bench.nets.precision import computing_in
from bench.records import (
    RECORD,
    SIMILARITY,
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
from bench.teachers.adapt import adapt_pool
from bench.teachers.similarity import similarity_file
from bench.teachers.store import build_pool
from bench.teachers.transfer import load_pool
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
            with computing_in(cell.protocol.precision, place.device):
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
        warnings=[*_warnings(cell), *parts.pop("notes", ())],
        started=started,
        ended=_now(),
        **cell.model_dump(mode="json", exclude={"pool"}),
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
    sets = scenario_data(cell, place.data)
    reason = refused_by_plan(method_class, cell)
    if reason:
        raise Skipped(reason)
    pool = obtain_pool(cell, place) if method.uses_pool else Pool([], "")
    _refuse_by_pool(method_class, cell, pool)
    net = meta_spec(cell, sets)
    strategies = Strategies(place.cache, place.device)
    make_context = functools.partial(
        _context, cell, method, pool, net, sets, place.device, strategies
    )
    reason = method.skip(make_context())
    if reason:
        raise Skipped(reason)
    key = fit_key(method_class, cell, net, pool.sha256, data_digest(sets))
    say = functools.partial(place.progress, "fit")
    fit = obtain_fit(place.cache, key, method, make_context, place.device, say, strategies)
    logger.info("fit %s: %.1f s%s", key, fit.seconds, " (reused)" if fit.reused else "")
    learner = calibrated(cell, method.learner(make_context(), fit.tensors))
    tested = tested_data(cell, sets)
    lists = task_lists(cell, tested, "test", learner)
    learner = at_its_size(method, learner, net, sets)
    tables = [_table(place, f"{key}/{cell.learner}", data) for data in tested]
    known = sum(table.n_known for table in tables)
    costs = [
        inference_cost(learner, data, data.splits["test"], tasks, place.device)
        for data, tasks in zip(tested, lists, strict=True)
    ]
    clock = Stopwatch(place.device)
    say = functools.partial(place.progress, "test tasks")
    with clock.running():
        accuracies = np.concatenate(
            [
                evaluate(learner, data, data.splits["test"], tasks, place.device, table, say)
                for data, tasks, table in zip(tested, lists, tables, strict=True)
            ]
        )
    write_tasks(folder / TASKS, accuracies, numbered_classes(tested, lists))
    _copy_fit_files(fit, folder)
    if similarity := similarity_file(place.cache, pool, sets, place.device):
        (folder / SIMILARITY).write_bytes(similarity.read_bytes())
    logger.info("accuracy %.4f over %d tasks", accuracies.mean(), len(accuracies))
    return {
        "accuracy": summarise(accuracies),
        "task_list_sha256": lists_digest(lists),
        "timing": _timing(fit, clock.seconds, len(accuracies), known > 0),
        "cost": Cost(
            params=learner.n_parameters,
            macs_per_query_image=round(float(np.mean([per_image for per_image, _ in costs]))),
            macs_adapt_per_task=round(float(np.mean([per_task for _, per_task in costs]))),
            teacher_forward_images=fit.counters.get("teacher_forward_images", 0),
            queries=fit.counters.get("queries", 0),
        ),
        "pool": summarise_pool(pool, cell.pool) if len(pool) else None,
        "fit": FitSummary(sha256=fit.sha256, reused=fit.reused, strategies=fit.strategies),
        "validated": method.validates,
        "notes": method.notes(make_context()),
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


def _refuse_by_pool(method: type[Method], cell: Cell, pool: Pool) -> None:
    if "bn_statistics" in method.needs_of(method.Config.model_validate(cell.method_config)):
        for teacher in pool:
            if not any(isinstance(part, torch.nn.BatchNorm2d) for part in teacher.net.modules()):
                raise Skipped(
                    f"needs batch norm statistics; teacher {teacher.name} "
                    f"({teacher.spec.architecture}) has no batch norm"
                )


def obtain_pool(cell: Cell, place: Workplace) -> Pool:
    """Return a cell's pool, trained or imported, taking the cell's images; kept for the next."""
    plans = plan_teachers(cell, place.data)
    sets = scenario_data(cell, place.data)
    first = sets[0]
    recipe = [plan.model_dump(mode="json") for plan in plans]
    chosen = cell.pool.model_dump() if cell.pool else None
    key = content_hash([recipe, chosen, first.mean, first.std])
    if key not in place.pools:
        place.pools.clear()
        if cell.pool is not None:
            pool = load_pool(place.cache, cell.pool.name, place.device)
            if pool.sha256 != cell.pool.sha256:
                raise BenchError(
                    f"pool '{cell.pool.name}' changed since the plan was made; run the command "
                    "again"
                )
        else:
            with computing_in("float32", place.device):
                pool = build_pool(place.cache, plans, place.data, place.device, place.progress)
        size = meta_spec(cell, sets).image_size
        place.pools[key] = adapt_pool(pool, first.mean, first.std, size)
    return place.pools[key]


def at_its_size(
    method: Method, learner: Learner, net: NetSpec, sets: Sequence[ImageData]
) -> Learner:
    """Return the learner for tasks of all image sizes: a meta-model meets them at its own.

    Learners of the teachers' features meet images as they are; each teacher resizes them.
    """
    if method.knowledge == "features" or len({one.image_size for one in sets}) == 1:
        return learner
    return resized(learner, net.image_size)


def data_digest(sets: Sequence[ImageData]) -> str:
    """Return the digest of one data set, or of several together."""
    digests = [one.digest for one in sets]
    return digests[0] if len(digests) == 1 else content_hash(digests)


def _table(place: Workplace, key: str, data: ImageData) -> EmbeddingTable:
    """Return the embeddings of a data set under a fit; those of another fit are let go."""
    if not all(known.startswith(f"{key}/") for known in place.embeddings):
        place.embeddings.clear()
    n_images = len(data.splits["test"].images)
    return place.embeddings.setdefault(f"{key}/{data.name}", EmbeddingTable(n_images, place.device))


def task_lists(
    cell: Cell, sets: Sequence[ImageData], split_name: str, learner: Learner
) -> list[TaskList]:
    """Return the tasks of each data set; their number is divided among the sets."""
    total = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    return [
        task_list(cell, data, split_name, learner, n_tasks)
        for data, n_tasks in zip(sets, shares(total, len(sets)), strict=True)
    ]


def lists_digest(lists: Sequence[TaskList]) -> str:
    """Return the digest of one task list, or of several together."""
    digests = [tasks.sha256 for tasks in lists]
    return digests[0] if len(digests) == 1 else content_hash(digests)


def numbered_classes(sets: Sequence[ImageData], lists: Sequence[TaskList]) -> np.ndarray:
    """Return the classes of all tasks (n, n_way); those of different data sets never coincide."""
    counts = [len(data.splits["test"].classes) for data in sets]
    starts = np.cumsum([0, *counts[:-1]])
    return np.concatenate(
        [tasks.classes + start for tasks, start in zip(lists, starts, strict=True)]
    )


def task_list(
    cell: Cell, data: ImageData, split_name: str, learner: Learner, n_tasks: int | None = None
) -> TaskList:
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
    if n_tasks is None:
        n_tasks = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    counts = data.splits[split_name].counts
    return frozen_tasks(data.name, split_name, counts, cell.shape, n_tasks, base)


def _context(
    cell: Cell,
    method: Method,
    pool: Pool,
    net: NetSpec,
    sets: Sequence[ImageData],
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
        number = 0
        if len(sets) > 1:
            number = int(torch.randint(len(sets), (), generator=generator))
        data = sets[number]
        split = data.splits["train"]
        tasks = random_tasks(split, cell.shape, n, generator)
        batch = tasks.batch(split, 0, n, data.mean, data.std, device)
        return resize_tasks(batch, net.image_size)

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
        validate=_validator(cell, method, net, sets, device) if method.validates else None,
        resume=resume,
        save=save,
        train_tasks=train_tasks if method.knowledge == "real_data" else None,
        choose=choose,
    )


def _validator(
    cell: Cell, method: Method, net: NetSpec, sets: Sequence[ImageData], device: torch.device
) -> Callable[[Learner], float] | None:
    """Return learner → mean accuracy on validation tasks, or on test tasks under `test_max`."""
    if cell.protocol.selection == "last":
        return None
    name = "val" if cell.protocol.selection == "val" else "test"

    def score(learner: Learner) -> float:
        lists = task_lists(cell, sets, name, learner)
        learner = at_its_size(method, learner, net, sets)
        accuracies = [
            evaluate(learner, data, data.splits[name], tasks, device)
            for data, tasks in zip(sets, lists, strict=True)
        ]
        return float(np.mean(np.concatenate(accuracies)))

    return score


def _timing(fit: Fit, test_seconds: float, n_tasks: int, reused: bool) -> Timing:
    return Timing(
        fit_s=fit.seconds,
        meta_iterations_per_s=fit.steps_per_s if "train_tasks" in fit.counters else None,
        train_tasks_per_s=fit.rate("train_tasks"),
        pseudo_images_per_s=fit.rate("pseudo_images"),
        test_s=test_seconds,
        test_tasks_per_s=n_tasks / test_seconds,
        embeddings_reused=reused,
    )


def summarise_pool(pool: Pool, imported: PoolChoice | None = None) -> PoolSummary:
    """Return what a record says of a pool."""
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
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
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
