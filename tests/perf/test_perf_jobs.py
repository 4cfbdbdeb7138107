"""Two processes of one thread against one, by the clock: a suite of many cells.

Each command is a process of its own that loads its libraries, as a user's does. On a machine that
does other work, too, only the seconds of processors mean something: on idle cores the ratio by the
clock would be about twice the ratio of one process's to those of two.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench.results.find import find_records
from tests.execute.test_run import ENVIRONMENT
from tests.faults.storm import SUITE, words
from tests.folders import copy_cache

SEEDS = 8
CELLS = 8 * SEEDS


class Took(NamedTuple):
    """Seconds by the clock, and those of processors in the process and all that it started."""

    clock: float
    processors: float


def run(suite: Path, cache: Path, folder: Path, jobs: int) -> Took:
    """Run all cells from decoded images on; return what that took."""
    copy_cache(cache, folder / "cache")
    places = words(suite, folder / "runs", folder / "cache", "--no-mlflow")
    command = [sys.executable, "-m", "bench", *places, f"--seeds={SEEDS}", f"--jobs={jobs}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = Took(
        time.perf_counter() - start,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
    assert len(find_records(folder / "runs")) == CELLS
    return took


def test_two_processes_against_one(benchmark, glyphs_cache: Path, tmp_path: Path) -> None:
    """Sixty-four cells; the ratio by the clock and the processors' seconds are the extra values."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(SUITE.replace("k_shot: [1]", "k_shot: [1, 5]"))
    one = run(suite, glyphs_cache, tmp_path / "one", 1)
    (two,) = benchmark.pedantic(lambda: [run(suite, glyphs_cache, tmp_path / "two", 2)], rounds=1)
    benchmark.extra_info |= {
        "seconds_of_one": round(one.clock, 1),
        "seconds_of_two": round(two.clock, 1),
        "ratio": round(one.clock / two.clock, 2),
        "processor_seconds_of_one": round(one.processors, 1),
        "processor_seconds_of_two": round(two.processors, 1),
    }
