"""Processes that share a suite and are killed at random moments, and what must be there then."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from bench.processes import holder
from bench.results.find import find_records
from tests.execute.test_run import ENVIRONMENT
from tests.processes import Process

SUITE = """
title: four quick cells
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets:
  micro: {teacher_epochs: 1, max_teachers: 2, meta_iterations: 8, oracle_iterations: 8,
          validate_every: 2, n_val_tasks: 2}
k_shot: [1]
n_test_tasks: 10
methods:
  - method: average
  - method: purer
    learner: protonet
  - method: distill_ensemble
    config: {flip: false, mirrored: false}
    budgets:
      short: {images_per_class: 8, inversion_steps: 10, steps_per_meta_iteration: 1}
  - method: oracle_protonet
"""


def words(suite: Path, runs: Path, cache: Path, *more: str) -> list[str]:
    """Return the command that runs a suite."""
    places = [f"--runs={runs}", f"--cache={cache}", "--checkpoint-every=0.2"]
    return ["run", str(suite), *places, "--device=cpu", "--no-figures", *more]


def storm(
    command: Sequence[str],
    n: int,
    moments: Iterable[object],
    draw: random.Random,
    deep: bool = False,
) -> int:
    """Have n processes work, kill one at random moments, and start another in its place.

    Args:
        command: what each runs.
        n: how many there are at any time.
        moments: yields when one is to be killed, unless the work has ended.
        draw: which one.
        deep: kill one of their children as well, in whose place none is started.

    Returns:
        How many were killed.
    """
    running, killed = [Process(command, env=ENVIRONMENT) for _ in range(n)], 0
    try:
        for _ in moments:
            number = draw.randrange(n)
            victim = _victim(running[number].pid, draw, deep)
            if running[number].poll() is not None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
            if victim == running[number].pid:
                running[number] = Process(command, env=ENVIRONMENT)
        ends = [one.communicate(timeout=1800) for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0] * n, ends
    assert "Traceback" not in "".join(map("".join, ends))
    return killed


def by_the_clock(kills: int, lasts: float, draw: random.Random) -> Iterator[None]:
    """Yield at random moments, so often in so many seconds, about."""
    for _ in range(kills):
        time.sleep(draw.uniform(0.1, 1.5) * lasts / kills)
        yield


def by_cells(kills: int, runs: Path, n: int, draw: random.Random) -> Iterator[None]:
    """Yield so often while n cells are finished, each time when a random one of them is.

    Never twice in short order: a cell that two kills in a row hit is rightly recorded as failed.
    """
    part = n // kills
    for wanted in (number * part + draw.randint(1, part // 2) for number in range(kills)):
        deadline = time.monotonic() + 3600
        while len(list(runs.glob("*/*/DONE"))) < wanted:
            assert time.monotonic() < deadline, f"never so many as {wanted}"
            time.sleep(0.05)
        yield


def _victim(pid: int, draw: random.Random, deep: bool) -> int:
    if deep:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(pid).children(recursive=True)
            return draw.choice([pid, *(one.pid for one in below if "python" in one.name())])
    return pid


def assert_complete(runs: Path, n: int, kills: int) -> None:
    """Check that all cells are done, and none twice but where a kill prevented its seal."""
    stored = find_records(runs)
    assert len({one.record.cell_hash for one in stored}) == len(stored) == n
    assert {one.record.status for one in stored} == {"done"}
    logs = [(one.folder / "log.txt").read_text(encoding="utf-8") for one in stored]
    assert all(" done" in log for log in logs)
    assert sum(log.count(" done") - 1 for log in logs) <= kills
    for path in runs.rglob("*.lease"):  # what a killed process held, and nobody asked for since
        assert holder(json.loads(path.read_text(encoding="utf-8"))) == "gone", path


def assert_mlflow_is_equal(runs: Path) -> None:
    """Check that the MLflow store shows each record once, complete, and nothing else."""
    from bench.results.mlflow import Tracker
    from bench.results.mlflow_store import Store

    stored = {one.record.cell_hash: one.record for one in find_records(runs)}
    found = Tracker(Store(runs)).runs("tags.kind = 'cell'")
    assert sorted(run.data.tags["cell_hash"] for run in found) == sorted(stored)
    for run in found:
        record = stored[run.data.tags["cell_hash"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["accuracy"] == pytest.approx(record.scored.mean)
        assert run.data.params["method"] == record.method
        assert len(run.inputs.dataset_inputs) == len(record.datasets)
    assert len(Tracker(Store(runs)).runs("tags.kind = 'suite'")) == 1
