"""One run of honest cells for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from honest import honest_runs


@pytest.fixture(scope="session")
def honest(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with honest cells; copy it to change it."""
    folder = tmp_path_factory.mktemp("honest")
    cache = shutil.copytree(glyphs_cache, folder / "cache")
    honest_runs(cache, folder / "runs")
    return folder / "runs"
