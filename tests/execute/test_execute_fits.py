"""Fits: shared where they may be, resumed with all they had noted, and timed without pauses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from bench.contract import Config, Method, NetSpec
from bench.errors import BenchError
from bench.execute.fits import FitRun, obtain_fit
from bench.execute.fitting import fit_folder, fit_key
from bench.execute.progress import Progress
from bench.execute.timing import Stopwatch
from bench.results.files import read_parquet
from bench.results.store import is_finished
from bench.suites.cell import Cell, PoolChoice
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from tests.helpers import tiny_context, tiny_pool

CPU = torch.device("cpu")
NET = NetSpec("conv4", 5, 32)


def keys(*settings: str, pool: str = "p", data: str = "d") -> dict[tuple[str, str, int], str]:
    cells = expand(*read_suite("glyphs", settings))
    return {
        (c.method, c.learner, c.k_shot): fit_key(
            registry.load("method", c.method), c, NET, pool, data
        )
        for c in cells
    }


def test_fits_are_shared_exactly_where_the_method_says() -> None:
    found = keys()
    assert found["random", "maml", 1] == found["random", "protonet", 5]
    assert found["average", "maml", 1] == found["average", "protonet", 5]
    assert found["purer", "maml", 1] != found["purer", "maml", 5]
    assert found["oracle_protonet", "protonet", 1] != found["oracle_protonet", "protonet", 5]
    assert found["random", "maml", 1] != found["average", "maml", 1]


def test_a_fit_follows_from_what_it_sees() -> None:
    plain, pool, data = keys(), keys(pool="q"), keys(data="e")
    changed = {k[0] for k in plain if plain[k] != pool[k]}
    assert changed == {
        "average",
        "best_teacher",
        "purer",
        "teacher_centroids",
        "ensemble_centroids",
        "distill_ensemble",
    }
    assert {k[0] for k in plain if plain[k] != data[k]} == {
        "purer",
        "oracle_protonet",
    }
    assert {k[0] for k, v in keys("purer.pixel_lr=0.3").items() if v != plain[k]} == {"purer"}


def test_pixels_are_part_of_a_fit_where_a_pool_may_be_adapted_to_them() -> None:
    cell = next(c for c in expand(*read_suite("micro")) if c.method == "average")
    imported = cell.model_copy(update={"pool": PoolChoice(name="mine", sha256="0" * 64)})
    several = cell.model_copy(update={"datasets": ("glyphs", "cub")})
    method = registry.load("method", "average")
    random = registry.load("method", "random")

    def key(cell: Cell, mean: float, method: type[Method] = method) -> str:
        return fit_key(method, cell, NET, "p", "d", ((mean,) * 3, (0.2,) * 3))

    assert key(cell, 0.4) == key(cell, 0.5) == fit_key(method, cell, NET, "p", "d")
    assert key(imported, 0.4) != key(imported, 0.5)
    assert key(several, 0.4) != key(several, 0.5)
    assert key(imported, 0.4, random) == key(imported, 0.5, random)


def test_a_calibration_is_no_part_of_a_fit() -> None:
    cell = next(c for c in expand(*read_suite("micro")) if c.method == "purer")
    update = {"calibration": "icfil", "calibration_config": {"steps": 3}}
    method = registry.load("method", "purer")
    calibrated = fit_key(method, cell.model_copy(update=update), NET, "p", "d")
    assert calibrated == fit_key(method, cell, NET, "p", "d")


class Counting(Method):
    """Adds up draws; saves after each step; breaks off where the test says."""

    name = "counting"
    knowledge = "parameters"
    Config = Config
    break_at: int | None = None

    def fit(self, context: Any) -> dict[str, torch.Tensor]:
        """Sum six draws."""
        generator = context.generator("draws")
        total, start = torch.zeros(()), 0
        if not context.resume:
            context.log.backend("sum", "one by one")
        if context.resume:
            generator.set_state(context.resume["generator"])
            total, start = context.resume["total"], context.resume["step"]
        for step in range(start + 1, 7):
            if step == self.break_at:
                raise KeyboardInterrupt
            total = total + torch.rand((), generator=generator)
            context.log.scalars(step, {"total": total})
            context.log.count("train_tasks", 2)
            state = {"generator": generator.get_state(), "total": total, "step": step}
            context.save(step, state)
        return {"total": total}

    def learner(self, context: Any, fitted: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError


def fit_run(cache: Path) -> FitRun:
    """Return the run of the fit `key`."""
    return FitRun(fit_folder(cache, "key"), CPU, Progress())


def obtain(cache: Path, method: Method) -> Any:
    pool = tiny_pool(["conv4"], 5, 16, torch.Generator().manual_seed(0))

    run = fit_run(cache)
    context = dataclasses.replace(tiny_context(method, pool, save=run.save), log=run.log)
    return obtain_fit(run, method, context)


def test_an_interrupted_fit_goes_on_with_all_it_had_noted(tmp_path: Path) -> None:
    broken = Counting()
    broken.break_at = 4
    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path / "a", broken)
    folder = fit_folder(tmp_path / "a", "key")
    assert list(folder.glob("checkpoint-*.pt"))
    assert not is_finished(folder)
    resumed, undisturbed = obtain(tmp_path / "a", Counting()), obtain(tmp_path / "b", Counting())
    assert torch.equal(resumed.tensors["total"], undisturbed.tensors["total"])
    assert resumed.counters == undisturbed.counters == {"train_tasks": 12}
    assert resumed.strategies == undisturbed.strategies == {"sum": "one by one"}
    assert not list(folder.glob("checkpoint-*.pt"))
    curves = [read_parquet(fit_folder(tmp_path / x, "key") / "curve.parquet") for x in "ab"]
    for name in ("step", "name", "value"):
        assert curves[0][name].tolist() == curves[1][name].tolist()
    assert curves[0]["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_finished_fit_is_not_made_again(tmp_path: Path) -> None:
    first = obtain(tmp_path, Counting())
    broken = Counting()
    broken.break_at = 1
    again = obtain(tmp_path, broken)
    assert not first.reused
    assert again.reused
    assert torch.equal(first.tensors["total"], again.tensors["total"])


def test_an_unreadable_checkpoint_starts_afresh(tmp_path: Path) -> None:
    folder = fit_folder(tmp_path, "key")
    folder.mkdir(parents=True)
    (folder / "checkpoint-00000001-0.pt").write_bytes(b"half a file")
    assert obtain(tmp_path, Counting()).counters == {"train_tasks": 12}


def test_a_changed_fit_is_made_again(tmp_path: Path) -> None:
    first = obtain(tmp_path, Counting())
    weights = first.folder / "fit.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    again = obtain(tmp_path, Counting())
    assert not again.reused
    assert torch.equal(first.tensors["total"], again.tensors["total"])


def test_a_failing_fit_leaves_its_error(tmp_path: Path) -> None:
    class Failing(Counting):
        """Fails at once."""

        def fit(self, context: Any) -> dict[str, torch.Tensor]:
            """Fail."""
            raise BenchError("no")

    with pytest.raises(BenchError, match="no"):
        obtain(tmp_path, Failing())
    assert not is_finished(fit_folder(tmp_path, "key"))


class Clock:
    """Time that passes only where a test says so."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all that is timed, on which a checkpoint takes 0.1 s."""
    made, save = Clock(), torch.save

    def slow(*arguments: Any) -> None:
        made.sleep(0.1)
        save(*arguments)

    monkeypatch.setattr("bench.execute.timing.time.perf_counter", lambda: made.now)
    monkeypatch.setattr(torch, "save", slow)
    return made


def test_the_clock_stops_while_paused(clock: Clock) -> None:
    watch = Stopwatch(CPU)
    with watch.running():
        clock.sleep(0.02)
        with watch.paused():
            clock.sleep(0.2)
        clock.sleep(0.03)
        assert watch.so_far.seconds == pytest.approx(0.05)
    assert watch.elapsed.seconds == watch.so_far.seconds == pytest.approx(0.05)


class Sleeping(Method):
    """Five steps of 0.1 s after a slow start, the first one slower; each is validated and saved."""

    name = "sleeping"
    knowledge = "parameters"
    Config = Config

    def __init__(self, clock: Clock, break_at: int | None = None):
        self.clock, self.break_at = clock, break_at

    def fit(self, context: Any) -> dict[str, torch.Tensor]:
        """Sleep."""
        start = context.resume["step"] if context.resume else 0
        self.clock.sleep(0.3)
        for step in range(start + 1, 6):
            if step == self.break_at:
                raise KeyboardInterrupt
            self.clock.sleep(0.3 if step == start + 1 else 0.1)
            context.log.count("train_tasks", 4)
            context.validate(None)
            context.log.progress(step, 5)
            context.save(step, {"step": step})
        return {"total": torch.zeros(())}

    def learner(self, context: Any, fitted: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError


def obtain_sleeping(cache: Path, method: Sleeping) -> Any:
    pool = tiny_pool(["conv4"], 5, 16, torch.Generator().manual_seed(0))

    def slow(learner: Any, after: Any) -> float:
        method.clock.sleep(0.1)
        return 0.5

    run = fit_run(cache)
    context = tiny_context(method, pool, validate=run.validation(slow), save=run.save)
    return obtain_fit(run, method, dataclasses.replace(context, log=run.log))


def test_the_logged_pace_is_that_of_the_steps_alone(tmp_path: Path, clock: Clock) -> None:
    """Neither the start, nor the first step, nor what the harness does in between."""
    fit = obtain_sleeping(tmp_path, Sleeping(clock))
    assert fit.pace["steps"] == 4
    assert fit.steps_per_s == pytest.approx(10)
    assert fit.rate("train_tasks") == pytest.approx(40)
    assert fit.elapsed.seconds == pytest.approx(0.3 + 0.3 + 4 * 0.1)
    assert fit.rate("queries") is None


def test_a_resumed_fit_counts_each_step_once_and_its_first_ones_never(
    tmp_path: Path, clock: Clock
) -> None:
    with pytest.raises(KeyboardInterrupt):
        obtain_sleeping(tmp_path, Sleeping(clock, break_at=4))
    fit = obtain_sleeping(tmp_path, Sleeping(clock))
    assert fit.pace["steps"] == 3  # 2 and 3, then 5
    assert fit.pace["counts"] == {"train_tasks": 12}
    assert fit.steps_per_s == pytest.approx(10)
    assert fit.elapsed.seconds == pytest.approx((0.3 + 0.3 + 2 * 0.1) + (0.3 + 0.3 + 0.1))


def test_without_a_loop_a_rate_is_over_the_whole_fit(tmp_path: Path) -> None:
    fit = obtain(tmp_path, Counting())
    assert fit.pace is None
    assert fit.steps_per_s is None
    assert fit.rate("train_tasks") == pytest.approx(12 / fit.elapsed.seconds)
