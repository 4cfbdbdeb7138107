"""Small runs that the tests of a session share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.left_by_a_run import SUITE, Left
from tests.helpers import write_birds


@pytest.fixture(scope="session")
def left(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What a run left; for reading only, or to be put back bit by bit: nothing is linked."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "two.yaml").write_text(SUITE)
    shutil.copytree(glyphs_cache, folder / "cache")
    found = Left(folder / "two.yaml", folder / "runs", folder / "cache")
    assert found.run() == 0
    return found


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """As `left`, of a few images of one's own: all its files are small, and soon read."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "two.yaml").write_text(SUITE.replace("glyphs", "birds"))
    images = write_birds(folder / "birds")
    found = Left(folder / "two.yaml", folder / "runs", folder / "cache", images)
    assert found.run() == 0
    return found
