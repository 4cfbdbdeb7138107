"""The fit of a cell: its pool and data found, its method asked whether it can, and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench import registry
from bench.contract import FitContext, Learner, Method, NetSpec, OtherFit, Pool
from bench.data.base import ImageData
from bench.errors import BenchError, Skip
from bench.execute.context import CellContext
from bench.execute.fits import Fit, FitRun, obtain_fit
from bench.execute.scenario import meta_spec, refused_by_plan, scenario_data
from bench.execute.state import RunState, obtain_pool
from bench.results.codebase import OTHER_FIT
from bench.results.files import content_hash
from bench.suites.cell import UNCALIBRATED, Cell, versions_of
from bench.teachers.adapt import normalises_otherwise

FITTED = ".fitted"
"""In the folder of a cell that is under way: it made its fit, and reused none."""
_SHAPE = ("n_way", "k_shot", "learner")


@dataclass(frozen=True)
class Fitted:
    """A cell's method after its fit, and what it was fitted on.

    `known` is all that the harness knows of the cell, `given` what the method was given.
    """

    known: CellContext
    given: FitContext
    fit: Fit

    def learner(self) -> Learner:
        """Return the method's learner."""
        return self.known.method.learner(self.given, self.fit.tensors)

    def notes(self) -> list[str]:
        """Return what a reader of the record should know of the fit."""
        method, pool = self.known.method, self.known.pool
        return [*method.notes(self.given), *self.fit.notes, *_taken_over(method, pool)]


def fit_cell(cell: Cell, state: RunState, mark: Path | None = None) -> Fitted:
    """Obtain the pool and the fit of a cell.

    Args:
        cell: its configuration.
        state: of the run.
        mark: a file that is made where the cell makes its fit, so that a fit that was finished
            before the cell was interrupted does not count as reused.

    Raises:
        Skip: the method cannot serve the cell, and why.
        BenchError: it could, but something went wrong.
    """
    method = registry.load("method", cell.method)
    if reason := refused_by_plan(method, cell):
        raise Skip(reason)
    pool = obtain_pool(cell, state) if method.uses_pool else Pool([], "")
    return fit_pool(cell, pool, state, mark)


def fit_pool(cell: Cell, pool: Pool, state: RunState, mark: Path | None = None) -> Fitted:
    """Obtain the fit of a cell to teachers that take its images.

    The caller has asked `refused_by_plan`; see `fit_cell`.
    """
    method: Method = registry.load("method", cell.method)()
    sets = scenario_data(cell, state.data)
    known = CellContext(cell, method, pool, meta_spec(cell, sets), sets, state.device)
    run = _fit_run(known, state, mark)
    given = replace(known.fit_context(run), other_fit=_OtherFits(cell, pool, state, run))
    if reason := _lacking_statistics(method, given) or method.skip(given):
        raise Skip(reason)
    return Fitted(known, given, obtain_fit(run, method, given))


@dataclass(frozen=True)
class _OtherFits(OtherFit):
    """Fits of other methods to the pool of a cell; see `FitContext.other_fit`."""

    cell: Cell
    pool: Pool
    state: RunState
    run: FitRun

    def __call__(self, method: str, preset: str = "released") -> dict[str, torch.Tensor]:
        """Return the stored fit, or make it; another process at it makes this cell wait, too.

        Raises:
            BenchError: the cell's configuration does not name the method.
        """
        if self.cell.method_config.get(OTHER_FIT) != method:
            raise BenchError(
                f"{self.cell.method} starts from the fit of '{method}' without naming it; set "
                f"`{OTHER_FIT}` in its configuration, so that the code of '{method}' counts"
            )
        kind = registry.load("method", method)
        learner = kind.default_learner
        values = dict(kind.preset_values(preset, registry.load("learner", learner)))
        changes = {
            "method": method,
            "preset": preset,
            "method_config": kind.Config.model_validate(values).model_dump(mode="json"),
            "learner": learner,
            "calibration": UNCALIBRATED,
            "calibration_config": {},
        }
        other = self.cell.model_copy(update=changes)
        return self.run.elsewhere(lambda: fit_pool(other, self.pool, self.state).fit.tensors)


def _fit_run(known: CellContext, state: RunState, mark: Path | None) -> FitRun:
    """Return the run of a cell's fit, which is under way only where the fit is not stored."""
    key = key_of_fit(known.cell, known.sets, known.pool.sha256)
    what, judge = f"fit of {known.cell.label}", state.makers.fit(known.cell, type(known.method))
    folder = fit_folder(state.cache, key)
    return FitRun(folder, state.device, state.progress, state.keeping, what, judge, mark)


def key_of_fit(cell: Cell, sets: Sequence[ImageData], pool_sha256: str) -> str:
    """Return the key of a cell's fit on its data sets and a pool of a digest; see `fit_key`."""
    method, net = registry.load("method", cell.method), meta_spec(cell, sets)
    pixels = (sets[0].mean, sets[0].std)
    return fit_key(method, cell, net, pool_sha256, data_digest(sets), pixels)


def fit_key(
    method: type[Method],
    cell: Cell,
    net: NetSpec,
    pool_sha256: str,
    data_digest: str,
    normalised: Sequence[Sequence[float]] = (),
) -> str:
    """Return the hash of everything that a fit depends on.

    The shape and the learner enter only where the method says so; the data only where the method
    sees any (oracles, or a validator), the test tasks only where it is selected on them, the query
    counts only where it validates; the pool
    only where the method uses one; the mean and deviation of the pixels only where a pool may be
    made to take others than it was trained on: an imported one, or one of several data sets;
    versions of plug-ins only above 1.
    """
    sees_data = method.knowledge == "real_data" or method.validates
    protocol = cell.protocol.identity()
    if not method.validates:
        protocol.pop("query_counts", None)  # of validation and test tasks only
    sees_tests = method.validates and cell.protocol.selection == "test_max"
    adapted = method.uses_pool and (cell.pool is not None or len(cell.datasets) > 1)
    pixels = {"pixels": [list(one) for one in normalised]} if adapted else {}
    plug_ins: list[tuple[registry.Kind, str]]
    plug_ins = [("method", cell.method), ("net", net.architecture)]
    if "learner" in method.fit_depends_on:
        plug_ins.append(("learner", cell.learner))
    versions = versions_of(plug_ins)
    return content_hash(
        pixels
        | ({"versions": versions} if versions else {})
        | {
            "method": cell.method,
            "config": cell.method_identity(),
            "net": [net.architecture, net.image_size],
            "shape": {k: getattr(cell, k) for k in _SHAPE if k in method.fit_depends_on},
            "budget": cell.budget.identity(),
            "protocol": protocol,
            "n_query": cell.n_query if "k_shot" in method.fit_depends_on else None,
            "n_test_tasks": cell.n_test_tasks if sees_tests else None,
            "pool": pool_sha256 if method.uses_pool else None,
            "data": data_digest if sees_data else None,
            "seed": cell.seed,
        }
    )[:20]


def fit_folder(cache: Path, key: str) -> Path:
    """Return the folder of a fit."""
    return cache / "fits" / key


def data_digest(sets: Sequence[ImageData]) -> str:
    """Return the digest of one data set, or of several together."""
    digests = [one.digest for one in sets]
    return digests[0] if len(digests) == 1 else content_hash(digests)


def _taken_over(method: Method, pool: Pool) -> list[str]:
    """Say which teachers' weights meet other pixels than they were trained on."""
    names = [teacher.name for teacher in pool if normalises_otherwise(teacher)]
    if not names or method.knowledge == "features":
        return []
    return [
        f"teachers trained on pixels of another mean and deviation ({', '.join(names)}): their "
        "predictions allow for it, weights that are merged or started from do not"
    ]


def _lacking_statistics(method: Method, context: FitContext) -> str | None:
    if "bn_statistics" in method.needs_of(context.config):
        for teacher in method.teachers_used(context):
            if not any(isinstance(part, torch.nn.BatchNorm2d) for part in teacher.net.modules()):
                return (
                    f"needs batch norm statistics; teacher {teacher.name} "
                    f"({teacher.spec.architecture}) has no batch norm"
                )
    return None
