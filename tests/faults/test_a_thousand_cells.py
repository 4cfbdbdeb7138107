"""Many cheap cells, on processes and on Dask workers that are killed: complete, nothing twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.storm import assert_complete, assert_mlflow_is_equal, by_cells, storm, words
from tests.folders import copy_cache

KILLS = 8
SUITE = """
title: ten cheap cells of each seed
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
k_shot: [1, 2, 3, 4, 5]
n_query: 1
n_test_tasks: 2
methods:
  - {method: random, learner: protonet}
  - {method: random, learner: centroids}
"""


@pytest.fixture
def folder(glyphs_cache: Path, empty_store: Path, tmp_path: Path) -> Path:
    """A folder with the suite, a cache, and an MLflow store without runs."""
    copy_cache(glyphs_cache, tmp_path / "cache")
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    (tmp_path / "cells.yaml").write_text(SUITE)
    return tmp_path


def command(folder: Path, n_seeds: int, *more: str) -> list[str]:
    suite = folder / "cells.yaml"
    return words(suite, folder / "runs", folder / "cache", f"--seeds={n_seeds}", *more)


def test_twenty_cells_on_three_processes(folder: Path) -> None:
    draw = random.Random(5)
    moments = by_cells(3, folder / "runs", 20, draw)
    kills = storm(command(folder, 2, "--jobs=1"), 3, moments, draw)
    assert kills == 3
    assert_complete(folder / "runs", 20, kills)
    assert_mlflow_is_equal(folder / "runs")


@pytest.mark.faults
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_thousand_cells_on_eight_processes(folder: Path, engine: str) -> None:
    if engine == "dask":
        pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    draw, more = random.Random(8), ["--jobs=8", f"--executor={engine}"]
    moments = by_cells(KILLS, folder / "runs", 1000, draw)
    kills = storm(command(folder, 100, *more), 1, moments, draw, deep=True)
    assert kills == KILLS
    assert_complete(folder / "runs", 1000, kills)
    assert_mlflow_is_equal(folder / "runs")
