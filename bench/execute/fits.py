"""Fits are stored by their own hash, shared by the cells that agree in what they depend on, and
resumed from their last checkpoint.

`<cache>/fits/<hash>/` holds `fit.safetensors`, `fit.json`, `curve.parquet`, `images/` and last
`DONE`; while a fit is under way, `checkpoint.pt`.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from bench.contract import FitContext, Learner, Method, NetSpec
from bench.errors import BenchError, Skip
from bench.execute.log import CellLog
from bench.execute.timing import Pace, Stopwatch
from bench.results.files import atomic_path, content_hash, write_json
from bench.results.store import is_finished, mark_done
from bench.suites.cell import Cell, versions_of

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

    def rate(self, counter: str) -> float | None:
        """Return how much was counted in a second: of the loop, or of the whole fit without one."""
        counted, seconds = self.counters, self.seconds
        if self.pace and self.pace["counts"].get(counter):
            counted, seconds = self.pace["counts"], self.pace["seconds"]
        amount = counted.get(counter)
        return amount / seconds if amount and seconds > 0 else None

    @property
    def steps_per_s(self) -> float | None:
        """The steps of the loop in a second."""
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
    plug_ins = [("method", cell.method), ("net", net.architecture)]
    plug_ins += [("learner", cell.learner)] * ("learner" in method.fit_depends_on)
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


def obtain_fit(
    cache: Path,
    key: str,
    method: Method,
    make_context: Callable[..., FitContext],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Fit:
    """Return the fit of that key: stored, resumed from its checkpoint, or made now.

    Args:
        cache: the cache folder.
        key: from `fit_key`.
        method: the method.
        make_context: called with log, resume, save and validate-wrapper; returns the context.
        device: whose clock counts.
        progress: called with (steps done, steps).

    Raises:
        Skip: the method found during the fit that it cannot serve the cell.
    """
    folder = fit_folder(cache, key)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if is_finished(folder):
            return _load(folder, key, reused=True)
        _make(folder, method, make_context, device, progress)
        return _load(folder, key, reused=False)


def _make(
    folder: Path,
    method: Method,
    make_context: Callable[..., FitContext],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    clock = Stopwatch(device)
    checkpoint = folder / "checkpoint.pt"
    resumed = _read_checkpoint(checkpoint)
    pace = Pace(clock, resumed.get("pace") if resumed else None)

    def advance(done: int, total: int) -> None:
        pace.step(done, log.counters)
        progress(done, total)

    log = CellLog(advance)
    before = 0.0
    if resumed:
        log.load_state_dict(resumed["log"])
        before = resumed["seconds"]

    def save(step: int, state: dict[str, Any]) -> None:
        with clock.paused():
            content = {
                "step": step,
                "state": state,
                "log": log.state_dict(),
                "seconds": before + clock.running_seconds,
                "pace": pace.state_dict(),
            }
            buffer = io.BytesIO()
            torch.save(content, buffer)
            with atomic_path(checkpoint) as temporary:
                temporary.write_bytes(buffer.getvalue())

    context = make_context(log=log, resume=resumed["state"] if resumed else None, save=save)
    if context.validate is not None:
        context = dataclasses.replace(context, validate=_off_the_clock(context.validate, clock))
    try:
        with clock.running():
            fitted = method.fit(context)
    except Skip:
        checkpoint.unlink(missing_ok=True)
        raise
    with atomic_path(folder / "fit.safetensors") as temporary:
        tensors = {name: t.detach().cpu().contiguous() for name, t in fitted.items()}
        temporary.write_bytes(serialise_safetensors(tensors))
    log.write(folder)
    summary = {
        "seconds": before + clock.seconds,
        "counters": log.counters,
        "strategies": log.backends,
        "pace": pace.state_dict() if pace.steps else None,
        "notes": log.notes,
    }
    write_json(folder / "fit.json", summary)
    checkpoint.unlink(missing_ok=True)
    mark_done(folder)


def _off_the_clock(
    validate: Callable[[Learner], float], clock: Stopwatch
) -> Callable[[Learner], float]:
    def timed(learner: Learner) -> float:
        with clock.paused():
            return validate(learner)

    return timed


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint's content; None where there is none or it cannot be read."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        path.unlink(missing_ok=True)
        return None


def _load(folder: Path, key: str, reused: bool) -> Fit:
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
    )
