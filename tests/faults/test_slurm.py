"""A real Slurm runs the script that `bench plan --slurm` prints: complete, bitwise as inline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.execute.test_jobs import assert_same
from tests.execute.test_run import bench, by_method
from tests.faults.storm import SUITE, assert_mlflow_is_equal
from tests.folders import copy_cache

ITERATIONS = int(os.environ.get("PURER_BENCH_SLURM_ITERATIONS", "600"))
"""Of the fit; with so many it takes longer than a minute on an ordinary core."""


def slurm(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder whose batch jobs find this environment's `bench`."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch here: apt-get install slurm-wlm munge")
    if subprocess.run(["sinfo"], capture_output=True).returncode != 0:
        pytest.skip("sinfo finds no cluster; set SLURM_CONF to that of one")
    program = tmp_path / "bin" / "bench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bench "$@"\n')
    program.chmod(0o755)
    return tmp_path


def wait_for(job: str) -> None:
    deadline = time.monotonic() + 1800
    while slurm("squeue", "--noheader", "--jobs", job, "--states=all", "--format=%T") not in (
        "",
        *("\n".join(["COMPLETED"] * n) for n in range(1, 5)),
    ):
        assert time.monotonic() < deadline, slurm("squeue", "--states=all")
        time.sleep(1)


@pytest.mark.slurm
@pytest.mark.timeout(3600)
def test_an_array_of_four_with_sixty_seconds_each_that_is_requeued_ends_as_one_process(
    cluster: Path, glyphs_cache: Path
) -> None:
    """The fit is longer than a task may take: SIGUSR1 saves it, and another job goes on.

    One task is requeued while it works, which Slurm does by SIGTERM; one is killed at its limit.
    """
    suite, runs, cache = cluster / "tiny.yaml", cluster / "runs", cluster / "cache"
    suite.write_text(SUITE.replace("meta_iterations: 8,", f"meta_iterations: {ITERATIONS},"))
    copy_cache(glyphs_cache, cache)
    words = [str(suite), f"--cache={cache}", "--device=cpu", "--no-figures"]
    array = ["--executor=slurm", "--jobs=4", "--time=1", "--checkpoint-every=5"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "SBATCH_MEM_PER_NODE": "0"}
    command = [sys.executable, "-m", "bench", "run", *words, *array, f"--runs={runs}"]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    job = wait_for_lease(runs, running)
    slurm("scontrol", "requeue", f"{job}_0")
    output, _ = running.communicate(timeout=3000)
    assert running.returncode == 0, output
    assert output.count("Slurm job") >= 2, "one job was enough; make the fit longer"
    shared = by_method(runs)
    assert_mlflow_is_equal(runs)
    assert bench("run", *words, f"--runs={cluster / 'alone'}", "--no-mlflow").returncode == 0
    assert_same(shared, by_method(cluster / "alone"))


def wait_for_lease(runs: Path, running: subprocess.Popen[str]) -> str:
    """Return the number of the job that works on the first cell."""
    deadline = time.monotonic() + 600
    while not list(runs.glob("*/.*.lease")):
        assert time.monotonic() < deadline
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    return slurm("squeue", "--noheader", "--format=%F", "--states=all").split()[0]


@pytest.mark.slurm
@pytest.mark.timeout(3600)
def test_an_array_that_is_requeued_ends_complete_and_as_one_process(
    cluster: Path, glyphs_cache: Path
) -> None:
    """Two tasks share the cells; one is requeued while it works, which Slurm does by SIGTERM."""
    suite, runs, cache = cluster / "tiny.yaml", cluster / "runs", cluster / "cache"
    suite.write_text(SUITE)
    for name in ("cache", "alone-cache"):
        copy_cache(glyphs_cache, cluster / name)
    words = ["plan", str(suite), f"--runs={runs}", f"--cache={cache}", "--device=cpu"]
    script = bench(*words, "--slurm=2", "--time=0:30:00")
    assert script.returncode == 0, script.stderr
    text = script.stdout.replace("--jobs=1", "--jobs=1 --no-mlflow --no-figures")
    environment = f"PATH={cluster / 'bin'}:{os.environ['PATH']},PYTHONPATH={Path.cwd()}"
    options = [f"--chdir={cluster}", f"--export=ALL,{environment}", "--mem=0"]
    job = slurm("sbatch", "--parsable", *options, text=text)
    deadline = time.monotonic() + 600
    while not list(runs.glob("*/.*.lease")):
        assert time.monotonic() < deadline, [one.read_text() for one in cluster.glob("slurm-*")]
        time.sleep(0.1)
    slurm("scontrol", "requeue", f"{job}_0")
    wait_for(job)
    shared = by_method(runs)
    assert not any(one.record.status == "failed" for one in shared.values())
    alone = ["run", str(suite), f"--runs={cluster / 'alone'}", f"--cache={cluster / 'alone-cache'}"]
    assert bench(*alone, "--device=cpu", "--no-mlflow", "--no-figures").returncode == 0
    assert_same(shared, by_method(cluster / "alone"))
