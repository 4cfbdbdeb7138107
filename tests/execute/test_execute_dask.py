"""The Dask engine gives the same records as the inline one, in processes of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.test_run import arguments, bench, by_method

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")


@pytest.mark.slow
def test_dask_and_inline_agree(cache: Path, glyphs_cache: Path, tmp_path: Path) -> None:
    only = ["--no-mlflow", "--only=method=random", "--only=method=average"]
    fresh = tmp_path / "fresh"
    shutil.copytree(glyphs_cache, fresh)
    ours, theirs = tmp_path / "dask", tmp_path / "inline"
    result = bench(*arguments(cache, ours, "--executor=dask", *only))
    assert result.returncode == 0, result.stderr
    assert "ensemble_centroids" not in result.stdout
    assert bench(*arguments(fresh, theirs, "--threads=1", *only)).returncode == 0
    found, expected = by_method(ours), by_method(theirs)
    assert set(found) == set(expected) == {"random", "average"}
    for name in found:
        assert found[name].record.cell_hash == expected[name].record.cell_hash
        assert found[name].record.device.threads == 1
        np.testing.assert_array_equal(found[name].accuracies(), expected[name].accuracies())
