"""Campaigns of kills: `tox -e faults`. A short version is in `tests/execute/test_jobs.py`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.execute.test_jobs import assert_same
from tests.execute.test_run import ENVIRONMENT, bench, by_method
from tests.processes import Process

KILLS = int(os.environ.get("PURER_BENCH_KILLS", "50"))
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
    places = [f"--runs={runs}", f"--cache={cache}", "--checkpoint-every=0.2"]
    return ["run", str(suite), *places, "--device=cpu", "--no-figures", *more]


def kill_one(process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill a run or one of its processes; tell whether it was the run itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        victims = [process.pid, *(one.pid for one in psutil.Process(process.pid).children())]
        victim = draw.choice(victims)
        os.kill(victim, signal.SIGKILL)
        return victim == process.pid
    return True


@pytest.mark.faults
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("mlflow", [False, True], ids=["records", "mlflow"])
def test_kills_at_random_moments_change_nothing(
    glyphs_cache: Path, tmp_path: Path, mlflow: bool
) -> None:
    """A suite on four processes, again and again from nothing, and with a cache that is left.

    Each time the run or one of its processes is killed at a random moment, up to three times; then
    it is run to its end. `PURER_BENCH_KILLS` says how many kills there are in all.
    """
    draw, seed_cache = random.Random(KILLS), glyphs_cache
    suite, more = tmp_path / "tiny.yaml", [] if mlflow else ["--no-mlflow"]
    suite.write_text(SUITE)
    shutil.copytree(seed_cache, tmp_path / "whole-cache")
    start = time.monotonic()
    whole = bench(*words(suite, tmp_path / "whole", tmp_path / "whole-cache", "--jobs=4", *more))
    assert whole.returncode == 0, whole.stderr
    lasts, expected = time.monotonic() - start, by_method(tmp_path / "whole")

    kills, rounds = 0, 0
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    while kills < KILLS:
        shutil.rmtree(runs, ignore_errors=True)
        if rounds % 2 == 0:
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(seed_cache, cache)
        rounds += 1
        for _ in range(draw.randint(1, 3)):
            command = words(suite, runs, cache, "--jobs=4", *more)
            process = Process(command, env=ENVIRONMENT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.05, 1) * lasts)
            while process.poll() is None and not kill_one(process, draw):
                kills += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.05, 0.5) * lasts)
            kills += 1
            assert process.wait(60) in (0, 1, -signal.SIGKILL)
        last = bench(*words(suite, runs, cache, "--jobs=4", *more))
        assert last.returncode == 0, (rounds, last.stderr)
        assert "Traceback" not in last.stderr
        assert_same(by_method(runs), expected)
        if mlflow:
            _assert_mlflow_is_equal(runs)


def _assert_mlflow_is_equal(runs: Path) -> None:
    from bench.results.mlflow import Tracker
    from bench.results.mlflow_store import Store

    stored = by_method(runs)
    found = Tracker(Store(runs)).runs("tags.kind = 'cell'")
    assert sorted(run.data.tags["cell_hash"] for run in found) == sorted(
        one.record.cell_hash for one in stored.values()
    )
    for run in found:
        record = stored[run.data.tags["method"]].record
        assert run.data.metrics["accuracy"] == pytest.approx(record.scored.mean)
