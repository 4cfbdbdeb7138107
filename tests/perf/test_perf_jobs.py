"""Two processes of one thread against one: seconds of a suite of many cells, and of processors.

On a machine that does other work, too, only the seconds of processors mean something: on idle
cores the ratio of the two times by the clock would be about twice the ratio of these.
"""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest

from tests.execute.test_run import bench
from tests.faults.storm import SUITE, words
from tests.helpers import copy_cache


@pytest.mark.parametrize("jobs", [1, 2])
def test_suite_of_many_cells(benchmark, glyphs_cache: Path, tmp_path: Path, jobs: int) -> None:
    """Forty cells from decoded images on; the processors' seconds are among the extra values."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(SUITE.replace("k_shot: [1]", "k_shot: [1, 5]"))

    def run() -> None:
        for name in ("runs", "cache"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        copy_cache(glyphs_cache, tmp_path / "cache")
        places = words(suite, tmp_path / "runs", tmp_path / "cache", "--no-mlflow")
        result = bench(*places, "--seeds=5", f"--jobs={jobs}")
        assert result.returncode == 0, result.stderr

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchmark.pedantic(run, rounds=1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    benchmark.extra_info["processor_seconds"] = round(used, 1)
