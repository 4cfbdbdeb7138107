"""A cache whose teachers are trained: most runs of the tests are about what comes after them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.folders import copy_cache, shared_folder


@pytest.fixture(scope="session")
def _trained(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.execute.test_run import arguments, bench

    def train(folder: Path) -> None:
        cache, runs = copy_cache(glyphs_cache, folder / "cache"), folder / "runs"
        done = bench(*arguments(cache, runs, "--only=method=ensemble_centroids", "--no-mlflow"))
        assert done.returncode == 0, done.stderr
        for made in ("fits", "plans", "similarity"):
            shutil.rmtree(cache / made, ignore_errors=True)

    return shared_folder(tmp_path_factory, "trained", train) / "cache"


@pytest.fixture
def trained_cache(_trained: Path, tmp_path: Path) -> Path:
    """A cache folder of the test's own, with the glyphs and the teachers of `arguments` in it."""
    return copy_cache(_trained, tmp_path / "cache")
