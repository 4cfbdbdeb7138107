"""One run of honest cells for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from honest import honest_runs

from tests.folders import copy_cache, shared_folder


@pytest.fixture(scope="session")
def honest(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with honest cells; copy it to change it."""

    def make(folder: Path) -> None:
        honest_runs(copy_cache(glyphs_cache, folder / "cache"), folder / "runs")

    return shared_folder(tmp_path_factory, "honest", make) / "runs"
