"""Estimated times of a plan's cells, from measured times of similar cells and one measured pass.

Times come from records of the runs folder that were made on this machine, else from the rates of
the stored results in the package, times what a forward pass takes here and now. They are scaled to
the cell's tasks, and to the meta-iterations or steps of a fit that has them, other fits to the
teachers: good to a factor of two or so. A method that never ran has no time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench import registry
from bench.contract import Method
from bench.data.base import ImageData
from bench.execute.devices import use_device
from bench.execute.fits import lacking
from bench.execute.fitting import fit_folder, key_of_fit
from bench.execute.machine import describe_device, prepare_process
from bench.execute.passes import pass_seconds, slowdown
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.rates import Took, Work, describe_work, stored_rates, took_here, trained_here
from bench.execute.scenario import plan_teachers, refused_by_plan, scenario_data
from bench.execute.state import Makers
from bench.results.files import content_hash
from bench.suites.cell import UNCALIBRATED, Cell
from bench.teachers.adapt import digest_of
from bench.teachers.cards import pool_cards
from bench.teachers.pool import TeacherSpec
from bench.teachers.store import is_stored, pool_digest, teacher_folder

MEMORY = Work._fields.index("image_size") + 1
"""Work that agrees in so many of its fields takes the same memory."""

MACHINE = Work._fields.index("config") + 1
"""Among work that agrees in so many of its fields, that of this machine comes first."""


class _Pool(NamedTuple):
    """The architecture of each teacher of a pool, the teachers to be trained, and its digest."""

    architectures: Sequence[str]
    missing: Sequence[TeacherSpec]
    digest: str


NO_POOL = _Pool((), (), "")
"""What a method is given that uses no pool."""


class Estimator:
    """Estimates the cells of a plan in the order in which they will run.

    Args:
        data: the data sets by name; those that are missing by their published counts.
        runs, cache: the folders of the run.
        device: where it will run.
    """

    def __init__(
        self, data: Mapping[str, ImageData], runs: Path, cache: Path, device: torch.device
    ) -> None:
        self._data, self._cache, self._device = data, cache, device
        self._seen: set[str] = set()
        self._pools: dict[str, _Pool] = {}
        self._makers = Makers(runs, torch.get_num_threads(), device.type)
        names = registry.offered("dataset")
        sizes = {name: registry.load("dataset", name).image_size for name in names}
        sizes |= {name: one.image_size for name, one in data.items()}
        stored, self._training_passes = stored_rates()
        here = describe_device(device)
        self._trained = trained_here(cache, here)
        self._known = took_here(runs, here, sizes)
        self._known += stored if device.type == "cpu" else []  # all of these are a CPU's
        self._medians: dict[tuple[Work, str], float | None] = {}
        self._memories: dict[Work, int | None] = {}

    def estimate(self, cell: Cell) -> dict[str, Any]:
        """Return a plan's estimates of a cell, without what the cells before it will have made.

        Returns:
            `teachers` of its pool, `teachers_stored` of them, `seconds` and `memory_bytes` (at the
            peak), None where not known yet; for a cell that its method cannot serve, `status`.
        """
        if not set(cell.datasets) <= set(self._data):
            return {}
        method = registry.load("method", cell.method)
        pool = self._pool(cell) if method.uses_pool else NO_POOL
        n = len(pool.architectures)
        counts = {"teachers": n, "teachers_stored": n - len(pool.missing)}
        if refused_by_plan(method, cell):
            return counts | {"status": "skipped", "seconds": 0.0}
        work = self._work(cell, pool.architectures)
        key = key_of_fit(cell, scenario_data(cell, self._data), pool.digest)
        training = sum(map(self._training_s, pool.missing))
        fit = self._fit_s(cell, work, method, key)
        test = self._test_s(cell, work, key)
        seconds = None if fit is None or test is None else round(training + fit + test, 1)
        return counts | {"seconds": seconds, "memory_bytes": self._memory(work)}

    def memory(self, cell: Cell) -> int | None:
        """Return the bytes that a cell takes at the peak; None where nothing like it was measured.

        A pool is taken to hold all architectures that the cell names.
        """
        method = registry.load("method", cell.method)
        return self._memory(self._work(cell, cell.architectures if method.uses_pool else ()))

    def most_memory(self, cell: Cell) -> int | None:
        """Return the most bytes that any cell of the same network and image size took."""
        work = self._work(cell, ())
        same = [one for one in self._known if one.work.spec == work.spec and one.memory]
        return max((one.memory for one in same if one.memory), default=None)

    def _work(self, cell: Cell, architectures: Sequence[str]) -> Work:
        size = max(self._data[name].image_size for name in cell.datasets)
        return describe_work(cell, size, architectures)

    def _pool(self, cell: Cell) -> _Pool:
        """Return the pool of a cell; cells that share it find it looked up."""
        if (settings := cell.pool_settings) not in self._pools:
            self._pools[settings] = self._looked_up(cell)
        return self._pools[settings]

    def _looked_up(self, cell: Cell) -> _Pool:
        if cell.pool is not None:
            cards = pool_cards(self._cache, cell.pool.name)
            digest = digest_of(cell.pool.sha256, cell.protocol, cell.seed)
            return _Pool([one.architecture for one in cards], [], digest)
        plans = plan_teachers(cell, self._data)
        missing = [plan for plan in plans if not self._is_stored(plan)]
        trained = None if missing else pool_digest(self._cache, plans)
        if trained is None:  # the digest of a pool that is still to be trained
            trained = content_hash([plan.content for plan in plans])
        digest = digest_of(trained, cell.protocol, cell.seed)
        return _Pool([plan.architecture for plan in plans], missing, digest)

    def _is_stored(self, plan: TeacherSpec) -> bool:
        there = teacher_folder(self._cache, plan).exists()  # the code need not be read for others
        return there and is_stored(self._cache, plan, self._makers.teacher(plan))

    def _training_s(self, plan: TeacherSpec) -> float:
        """Return the seconds of training a teacher; best and last epoch come from one training."""
        training = plan.model_dump(mode="json", exclude={"recipe": {"checkpoint"}})
        if self._met(content_hash(training)):
            return 0.0
        counts = self._data[plan.dataset].splits["train"].counts
        n_images = plan.recipe.train_fraction * sum(int(counts[c]) for c in plan.classes)
        seconds = self._trained.get((plan.architecture, plan.image_size))
        if seconds is None:
            seconds = self._training_passes * pass_seconds(plan.spec, self._device)
        return seconds * n_images * plan.recipe.epochs

    def _fit_s(self, cell: Cell, work: Work, method: type[Method], key: str) -> float | None:
        """Return the seconds of a fit with its validations; 0 for one that is stored and used."""
        folder = fit_folder(self._cache, key)
        if self._met(key) or (folder.exists() and self._is_taken(folder, cell, method)):
            return 0.0

        def scale(one: Took) -> float:
            if not one.grows:
                return (1 + work.n_teachers) / (1 + one.work.n_teachers)
            of_tasks = "k_shot" in method.fit_depends_on
            images = work.images / one.work.images if of_tasks else 1.0
            return images * work.iterations / one.work.iterations

        fit = self._median_s(work, "fit", scale, same_method=True)
        if fit is None or not method.validates:
            return fit
        task = self._task_s(work._replace(calibration=UNCALIBRATED), "task")
        return None if task is None else fit + task * _n_validated(cell, work)

    def _is_taken(self, folder: Path, cell: Cell, method: type[Method]) -> bool:
        return lacking(folder, self._makers.fit(cell, method)) is None

    def _test_s(self, cell: Cell, work: Work, key: str) -> float | None:
        """Return the seconds of a test, whose images an earlier cell may have embedded."""
        repeated = self._met(content_hash([key, cell.learner, cell.calibration, cell.tested]))
        task = self._task_s(work, "repeated_task") if repeated else None
        task = self._task_s(work, "task") if task is None else task
        return None if task is None else task * cell.n_test_tasks

    def _task_s(self, work: Work, name: str) -> float | None:
        """Return the seconds per test task, from the field of that name."""
        own = name == "repeated_task"  # what is left of a task then, only the method tells
        return self._median_s(work, name, lambda one: work.images / one.work.images, own)

    def _median_s(
        self, work: Work, name: str, scale: Callable[[Took], float], same_method: bool
    ) -> float | None:
        """Return the median of a scaled field, in seconds, over the most similar work."""

        def told(one: Took) -> bool:
            fits = one.work.method == work.method or not same_method
            return fits and getattr(one, name) is not None

        if (work, name) not in self._medians:
            known = self._like(work, told)
            seconds = [getattr(one, name) * scale(one) * self._unit_s(one, work) for one in known]
            self._medians[work, name] = statistics.median(seconds) if seconds else None
        return self._medians[work, name]

    def _unit_s(self, one: Took, work: Work) -> float:
        """Return the seconds per unit of a measured time, for the meta-model of some work."""
        if one.here and one.work.spec == work.spec:
            return slowdown(work.spec, self._device) if one.undisturbed else 1.0
        now = pass_seconds(work.spec, self._device)
        return now / pass_seconds(one.work.spec, self._device) if one.here else now

    def _memory(self, work: Work) -> int | None:
        if work not in self._memories:
            same = self._like(work, lambda one: one.work[:MEMORY] == work[:MEMORY])
            found = [one.memory for one in same if one.memory]
            self._memories[work] = round(statistics.median(found)) if found else None
        return self._memories[work]

    def _like(self, work: Work, accepted: Callable[[Took], bool]) -> list[Took]:
        """Return the accepted measurements that are most similar to some work."""

        def likeness(one: Took) -> list[bool]:
            equal = [a == b for a, b in zip(one.work, work, strict=True)]
            return [*equal[:MACHINE], one.here, *equal[MACHINE:]]

        known = [(likeness(one), one) for one in self._known if accepted(one)]
        best = max((like for like, _ in known), default=[])
        return [one for like, one in known if like == best]

    def _met(self, name: str) -> bool:
        """Tell whether something was met before, and remember it."""
        met = name in self._seen
        self._seen.add(name)
        return met


def estimator_for(plan: ResolvedSuite, request: Request) -> Estimator:
    """Return what estimates a plan's cells as they would run in this process."""
    device = use_device(request.device)
    prepare_process(request.threads)
    return Estimator({**plan.nominal, **plan.data}, request.runs, request.cache, device)


def _n_validated(cell: Cell, work: Work) -> int:
    """Return how many tasks the validations of a fit score in all."""
    tasks = {"val": cell.budget.n_val_tasks, "test_max": cell.n_test_tasks, "last": 0}
    evaluations = 1 + -(-work.iterations // cell.budget.validate_every)
    return evaluations * tasks[cell.protocol.selection]
