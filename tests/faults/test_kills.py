"""Kills at random moments change nothing; `tox -e faults` has many, of four processes."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from bench.execute.integrity import damaged
from tests.execute.test_jobs import assert_same
from tests.execute.test_run import bench, by_method
from tests.faults.left_by_a_run import Left
from tests.faults.storm import (
    SUITE,
    assert_complete,
    assert_mlflow_is_equal,
    by_the_clock,
    storm,
    words,
)
from tests.folders import copy_cache

KILLS = int(os.environ.get("PURER_BENCH_KILLS", "50"))
OF_A_ROUND = 5


def test_three_kills_change_nothing(
    left: Left, glyphs_cache: Path, empty_store: Path, tmp_path: Path
) -> None:
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    copy_cache(glyphs_cache, cache)
    runs.mkdir()
    shutil.copy(empty_store, runs)
    command = words(left.suite, runs, cache, "--jobs=1")
    draw = random.Random(3)
    kills = storm(command, 2, by_the_clock(3, 6, draw), draw)
    assert_same(by_method(runs), by_method(left.runs))
    assert_complete(runs, 2, kills)
    assert_mlflow_is_equal(runs)
    assert damaged(cache, runs) == []


@pytest.mark.faults
@pytest.mark.timeout(4 * 3600)
def test_many_kills_of_four_processes_change_nothing(glyphs_cache: Path, tmp_path: Path) -> None:
    """`PURER_BENCH_KILLS` kills, in rounds from nothing and rounds with a cache that is left.

    In most rounds there are four commands of one process; in every fourth one command of four,
    which is killed itself, or loses one of its processes.
    """
    draw = random.Random(seed := time.time_ns())
    suite, runs, cache = tmp_path / "tiny.yaml", tmp_path / "runs", tmp_path / "cache"
    suite.write_text(SUITE)
    copy_cache(glyphs_cache, tmp_path / "whole-cache")
    start = time.monotonic()
    whole = words(suite, tmp_path / "whole", tmp_path / "whole-cache", "--jobs=1", "--no-mlflow")
    assert bench(*whole).returncode == 0
    lasts, expected = time.monotonic() - start, by_method(tmp_path / "whole")

    kills, rounds = 0, 0
    while kills < KILLS:
        shutil.rmtree(runs, ignore_errors=True)
        if rounds % 2 == 0:
            shutil.rmtree(cache, ignore_errors=True)
            copy_cache(glyphs_cache, cache)
        one_command = rounds % 4 == 3
        n, jobs = (1, 4) if one_command else (4, 1)
        command = words(suite, runs, cache, f"--jobs={jobs}")
        killed = storm(command, n, by_the_clock(OF_A_ROUND, lasts, draw), draw, one_command)
        kills, rounds = kills + killed, rounds + 1
        print(f"round {rounds} of seed {seed}: {kills} kills", flush=True)
        assert_same(by_method(runs), expected)
        assert_complete(runs, 4, killed)
        assert_mlflow_is_equal(runs)
        assert damaged(cache, runs) == []
