"""Fits are stored by their own hash, and shared by the cells that agree in what they depend on.

`<cache>/fits/<hash>/` holds `fit.safetensors`, `fit.json`, `curve.parquet`, `images/` and last
`DONE`; while a fit is under way, its last checkpoints, from which it is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors

from bench.checkpoints import Checkpoints, Keeping
from bench.contract import FitContext, Learner, Method
from bench.errors import BenchError, Skip
from bench.execute.log import CellLog
from bench.execute.progress import Progress
from bench.execute.timing import Elapsed, Pace, Stopwatch
from bench.leases import Lease, hold
from bench.results.files import write_bytes, write_json
from bench.results.maker import Judge, trusted
from bench.results.store import CURVE, DONE, damage, mark_done

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEASE = ".lease"
"""In the folder of a fit that is under way."""


@dataclass(frozen=True)
class Fit:
    """What a method learned, how long it took, the counters it reported, its backends."""

    sha256: str
    tensors: dict[str, Tensor]
    elapsed: Elapsed
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
    code: str | None = None
    """digest of the code that made it, where known"""
    threads: int | None = None
    """CPU threads that it had, where known"""
    doubt: str | None = None
    """how it was made otherwise than it would be now, where it was"""

    def rate(self, counter: str) -> float | None:
        """Return a counter per second, over the loop or, without a loop, over the whole fit."""
        counted, seconds = self.counters, self.elapsed.seconds
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


class FitRun:
    """A fit under way: its clock and log, and the checkpoints that it goes on from.

    Args:
        folder: of the fit, as `fit_folder` names it.
        device: whose clock counts.
        progress: gets the steps.
        keeping: how often checkpoints are written, and whether to end.
        what: the fit, in words.
        judge: decides whether a stored fit or checkpoint is taken.
        mark: a file that says that the fit is made by whom asks for it; None leaves none.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        progress: Progress,
        keeping: Keeping = Keeping(),  # noqa: B008  frozen
        what: str = "fit",
        judge: Judge = Judge(),  # noqa: B008  frozen
        mark: Path | None = None,
    ) -> None:
        self.folder, self.what = folder, what
        self._mark = mark
        self.judge = judge
        self.log = CellLog(self._advance)
        self._progress, self._stop = progress, keeping.stop
        self._checkpoints = Checkpoints(folder, what, keeping, judge)
        self._clock = Stopwatch(device)
        self._pace = Pace(self._clock)
        self._before = Elapsed()
        self._total = 0

    def resume(self) -> dict[str, Any] | None:
        """Take up what an interrupted fit had saved; return the method's state, None without."""
        content = self._checkpoints.load()
        if content is None:
            return None
        self.log.load_state_dict(content["log"])
        if self._checkpoints.doubt:
            self.log.note(trusted(self._checkpoints.doubt))
        self._pace = Pace(self._clock, content["pace"])
        self._before = Elapsed.from_state(content)
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
                **self._before.plus(self._clock.so_far).state_dict(),
                "pace": self._pace.state_dict(),
            }
            self._checkpoints.write(content, f"step {step}")

    def elsewhere(self, obtain: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what another fit gives; the time that it takes does not count."""
        with self._clock.paused():
            return obtain()

    def validation(self, score: Callable[..., float]) -> Callable[[Learner], float]:
        """Return a function whose time does not count as the fit's, and which may be ended.

        Args:
            score: a learner → its accuracy, a fraction; with `after` as `evaluate` takes it.
        """

        def validate(learner: Learner) -> float:
            with self._clock.paused():
                accuracy = score(learner, after=lambda done: self._stop.check())
            self._progress.validated(accuracy)
            return accuracy

        return validate

    def make(self, method: Method, context: FitContext, lease: Lease) -> None:
        """Fit, from the last checkpoint where there is one, and write what came of it.

        Raises:
            Busy: another process took the fit over meanwhile.
        """
        if self._mark is not None:
            self._mark.touch()
        context.resume = self.resume()
        try:
            with self._clock.running():
                fitted = method.fit(context)
        except Skip:
            self._checkpoints.clear()
            raise
        lease.check()
        self._show_curve(self._total)
        self._drop_older()
        tensors = {name: t.detach().cpu().contiguous() for name, t in fitted.items()}
        write_bytes(self.folder / "fit.safetensors", serialise_safetensors(tensors))
        self.log.write(self.folder)
        summary = {
            **self._before.plus(self._clock.elapsed).state_dict(),
            "counters": self.log.counters,
            "strategies": self.log.backends,
            "pace": self._pace.state_dict() if self._pace.steps else None,
            "notes": self.log.notes,
            "extra": self.log.extras,
            **self.judge.stamp(),
        }
        write_json(self.folder / "fit.json", summary)
        self._checkpoints.clear()
        mark_done(self.folder)

    def load(self) -> Fit:
        """Return the finished fit; it counts as reused unless whom it is for made it."""
        made_here = self._mark is not None and self._mark.exists()
        return _load(self.folder, not made_here, self.judge)

    def _drop_older(self) -> None:
        """Remove the files of an older fit, which was there until now."""
        (self.folder / DONE).unlink(missing_ok=True)
        for path in [self.folder / CURVE, *self.folder.glob("images/*.png")]:
            path.unlink(missing_ok=True)

    def _advance(self, done: int, total: int) -> None:
        self._pace.step(done, self.log.counters)
        self._total = total
        if self._progress.curve_is_due():
            with self._clock.paused():
                self._show_curve(total)
        self._progress("fit", done, total)

    def _show_curve(self, total: int) -> None:
        """Let others see the points of the curves that are new."""
        self._progress.curve(self.log.new_points(), total)


def obtain_fit(run: FitRun, method: Method, context: FitContext) -> Fit:
    """Return the fit of a folder: stored, resumed from its checkpoint, or made now.

    Args:
        run: names the folder, and keeps what is made.
        method: the method.
        context: what it is given, made with the same `run`.

    Raises:
        Skip: the method found during the fit that it cannot serve the cell.
        Busy: another process is fitting it.
    """
    if lacking(run.folder, run.judge) is None:  # without a lease: reading only
        return run.load()
    run.folder.mkdir(parents=True, exist_ok=True)
    with hold(run.folder / LEASE, run.what) as lease:
        reason = lacking(run.folder, run.judge)
        if reason is None:
            return run.load()
        if reason:
            run.judge.say(f"{run.what}: {reason}; fitting again")
        run.make(method, context, lease)
        return _load(run.folder, False, run.judge)


def lacking(folder: Path, judge: Judge) -> str | None:
    """Return None where a folder holds a finished fit that a run takes, else why not.

    Empty where there is none.
    """
    if (problem := damage(folder)) is not None:
        return f"fit {folder.name}: {problem}" if (folder / DONE).exists() else ""
    return judge.objection(_summary(folder), folder.name, "this fit")


def _summary(folder: Path) -> dict[str, Any]:
    """Return what `fit.json` says.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        return json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"fit {folder.name} is not readable ({error}); delete {folder} to fit again"
        ) from None


def _load(folder: Path, reused: bool, judge: Judge) -> Fit:
    key, summary = folder.name, _summary(folder)
    try:
        tensors = parse_safetensors((folder / "fit.safetensors").read_bytes())
    except (OSError, ValueError) as error:
        raise BenchError(
            f"fit {key} is not readable ({error}); delete {folder} to fit again"
        ) from None
    maker = judge.made(summary, key)
    return Fit(
        key,
        tensors,
        Elapsed.from_state(summary),
        summary["counters"],
        folder,
        reused,
        summary.get("strategies", {}),
        summary.get("pace"),
        tuple(summary.get("notes", ())),
        summary.get("extra", {}),
        maker.code.digest if maker else None,
        maker.threads if maker else None,
        judge.doubt(summary, key, "this fit"),
    )
