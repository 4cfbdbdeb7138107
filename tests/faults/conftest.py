"""One small run that the tests of a session share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.left_by_a_run import SUITE, Left
from tests.helpers import copy_cache


@pytest.fixture(scope="session")
def left(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What a run left; for reading only."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "two.yaml").write_text(SUITE)
    copy_cache(glyphs_cache, folder / "cache")
    found = Left(folder / "two.yaml", folder / "runs", folder / "cache")
    assert found.run() == 0
    return found
