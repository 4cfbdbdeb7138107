"""The Dask engine gives the same records as the inline one, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.execute.plan import Request
from tests.execute.test_run import arguments, bench, by_method
from tests.helpers import copy_cache

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")


def test_paths_mean_the_same_to_all_workers() -> None:
    request = Request(Path("runs"), Path("c"), Path("data"), {"x": Path("x")}, "cpu", 1, "bench")
    found = request.resolved()
    paths = (found.runs, found.cache, found.data_dir, found.dataset_dirs["x"])
    assert all(path.is_absolute() for path in paths)


@pytest.mark.slow
@pytest.mark.faults
def test_a_teacher_that_fails_fails_its_cells_only(cache: Path, tmp_path: Path) -> None:
    """A class of one image leaves none to hold out."""
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(5):
            folder = tmp_path / "birds" / split / f"{split}{number}"
            folder.mkdir(parents=True)
            for image in range(1 if (split, number) == ("train", 0) else 20):
                pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{image}.png")
    words = [f"--dataset-dir=birds={tmp_path / 'birds'}", "--set=n_test_tasks=8", "--no-mlflow"]
    words += [f"--runs={tmp_path / 'runs'}", f"--cache={tmp_path / 'cache'}", "--no-figures"]
    words += ["--only=method=random", "--only=method=ensemble_centroids", "--only=k_shot=1"]
    result = bench("run", "own", *words, "--set=budget.teacher_epochs=1", "--executor=dask")
    found = by_method(tmp_path / "runs")
    assert result.returncode == 1, result.stderr
    assert {name: one.record.status for name, one in found.items()} == {
        "random": "done",
        "ensemble_centroids": "failed",
    }


@pytest.mark.slow
def test_dask_and_inline_agree(cache: Path, glyphs_cache: Path, tmp_path: Path) -> None:
    only = ["--no-mlflow", "--only=method=random", "--only=method=average"]
    fresh = tmp_path / "fresh"
    copy_cache(glyphs_cache, fresh)
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
