"""Fits are stored by their own hash, and shared by the cells that agree in what they depend on.

`<cache>/fits/<hash>/` holds `fit.safetensors`, `fit.json`, `curve.parquet`, `images/` and last
`DONE`; while a fit is under way, its last checkpoints, from which it is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors

from bench import registry
from bench.checkpoints import Checkpoints, Keeping
from bench.contract import FitContext, Learner, Method, NetSpec
from bench.errors import BenchError, Skip
from bench.execute.log import CellLog
from bench.execute.timing import Pace, Stopwatch
from bench.results.files import atomic_path, content_hash, write_json
from bench.results.store import is_finished, mark_done
from bench.suites.cell import Cell, versions_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SHAPE = ("n_way", "k_shot", "learner")


@dataclass(frozen=True)
class Fit:
    """What a method learned, how long it took, the counters it reported, its backends."""

    sha256: str
    tensors: dict[str, Tensor]
    seconds: float
    counters: dict[str, int]
    folder: Path
    reused: bool
    strategies: dict[str, str]
    pace: dict[str, Any] | None = None
    """from `Pace.state_dict`; None where the fit was no loop, or an older version made it"""
    notes: tuple[str, ...] = ()
    """what the method said of the fit, for the records' warnings"""
    extra: dict[str, Any] = field(default_factory=dict)
    """values of the method's own, for the records' `extra`"""

    def rate(self, counter: str) -> float | None:
        """Return a counter per second, over the loop or, without a loop, over the whole fit."""
        counted, seconds = self.counters, self.seconds
        if self.pace and self.pace["counts"].get(counter):
            counted, seconds = self.pace["counts"], self.pace["seconds"]
        amount = counted.get(counter)
        return amount / seconds if amount and seconds > 0 else None

    @property
    def steps_per_s(self) -> float | None:
        """The steps of the loop per second."""
        if self.pace is None or not self.pace["seconds"] > 0:
            return None
        return self.pace["steps"] / self.pace["seconds"]


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
    sees any (oracles, or a validator), the test tasks only where it is selected on them; the pool
    only where the method uses one; the mean and deviation of the pixels only where a pool may be
    made to take others than it was trained on: an imported one, or one of several data sets;
    versions of plug-ins only above 1.
    """
    sees_data = method.knowledge == "real_data" or method.validates
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
            "protocol": cell.protocol.identity(),
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


class FitRun:
    """A fit under way: its clock and log, and the checkpoints that it goes on from.

    Args:
        folder: of the fit, as `fit_folder` names it.
        device: whose clock counts.
        progress: called with (steps done, steps).
        keeping: how often checkpoints are written, and whether to end.
        what: the fit, in words.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        progress: Callable[[int, int], None],
        keeping: Keeping = Keeping(),  # noqa: B008  frozen
        what: str = "fit",
    ) -> None:
        self.folder = folder
        self.log = CellLog(self._advance)
        self._progress, self._stop = progress, keeping.stop
        self._checkpoints = Checkpoints(folder, what, keeping)
        self._clock = Stopwatch(device)
        self._pace = Pace(self._clock)
        self._seconds_before = 0.0

    def resume(self) -> dict[str, Any] | None:
        """Take up what an interrupted fit had saved; return the method's state, None without."""
        content = self._checkpoints.load()
        if content is None:
            return None
        self.log.load_state_dict(content["log"])
        self._pace = Pace(self._clock, content["pace"])
        self._seconds_before = content["seconds"]
        return content["state"]

    def due(self) -> bool:
        """Tell whether it is time for a checkpoint, or for the end."""
        return self._checkpoints.due()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; the time that it takes does not count.

        Raises:
            Stopped: the end was asked for.
        """
        with self._clock.paused():
            content = {
                "state": state,
                "log": self.log.state_dict(),
                "seconds": self._seconds_before + self._clock.running_seconds,
                "pace": self._pace.state_dict(),
            }
            self._checkpoints.write(content, f"step {step}")

    def locked(self) -> AbstractContextManager[None]:
        """Hold the fit's folder against other processes."""
        return self._stop.locked(self.folder / ".lock")

    def untimed(self, score: Callable[[Learner], float]) -> Callable[[Learner], float]:
        """Return a function whose time is not counted in the fit's."""

        def paused(learner: Learner) -> float:
            with self._clock.paused():
                return score(learner)

        return paused

    def make(self, method: Method, context: FitContext) -> None:
        """Fit, from the last checkpoint where there is one, and write what came of it."""
        context.resume = self.resume()
        try:
            with self._clock.running():
                fitted = method.fit(context)
        except Skip:
            self._checkpoints.clear()
            raise
        with atomic_path(self.folder / "fit.safetensors") as temporary:
            tensors = {name: t.detach().cpu().contiguous() for name, t in fitted.items()}
            temporary.write_bytes(serialise_safetensors(tensors))
        self.log.write(self.folder)
        summary = {
            "seconds": self._seconds_before + self._clock.seconds,
            "counters": self.log.counters,
            "strategies": self.log.backends,
            "pace": self._pace.state_dict() if self._pace.steps else None,
            "notes": self.log.notes,
            "extra": self.log.extras,
        }
        write_json(self.folder / "fit.json", summary)
        self._checkpoints.clear()
        mark_done(self.folder)

    def _advance(self, done: int, total: int) -> None:
        self._pace.step(done, self.log.counters)
        self._progress(done, total)


def obtain_fit(run: FitRun, method: Method, context: FitContext) -> Fit:
    """Return the fit of a folder: stored, resumed from its checkpoint, or made now.

    Args:
        run: names the folder, and keeps what is made.
        method: the method.
        context: what it is given, made with the same `run`.

    Raises:
        Skip: the method found during the fit that it cannot serve the cell.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.locked():
        reused = is_finished(run.folder)
        if not reused:
            run.make(method, context)
        return _load(run.folder, reused)


def _load(folder: Path, reused: bool) -> Fit:
    key = folder.name
    try:
        summary = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        tensors = parse_safetensors((folder / "fit.safetensors").read_bytes())
    except (OSError, ValueError) as error:
        raise BenchError(
            f"fit {key} is not readable ({error}); delete {folder} to fit again"
        ) from None
    return Fit(
        key,
        tensors,
        summary["seconds"],
        summary["counters"],
        folder,
        reused,
        summary.get("strategies", {}),
        summary.get("pace"),
        tuple(summary.get("notes", ())),
        summary.get("extra", {}),
    )
