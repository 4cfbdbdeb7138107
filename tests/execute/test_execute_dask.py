"""The Dask engine gives the same records as the inline one, in processes of its own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

from bench.checkpoints import Keeping
from bench.cli.options import resolve
from bench.execute import dask
from bench.execute.dask import Workers
from bench.execute.plan import Request
from bench.execute.sharing import Order, Unit, share
from bench.execute.worker import Setup
from tests.execute.test_dask_crew import ROOM, Client
from tests.execute.test_run import arguments, bench, by_method
from tests.execute.test_sharing import Shown
from tests.folders import copy_cache
from tests.helpers import write_birds


def test_paths_mean_the_same_to_all_workers() -> None:
    request = Request(Path("runs"), Path("c"), Path("data"), {"x": Path("x")}, "cpu", 1, "bench")
    found = request.resolved()
    paths = (found.runs, found.cache, found.data_dir, found.dataset_dirs["x"])
    assert all(path.is_absolute() for path in paths)


class AtOnce(Client):
    """A client whose workers do at once, in this process, what they are given."""

    def submit(self, work: Any, setup: Setup, unit: Unit, run_id: str, workers: Any, **more: Any):
        future = super().submit(work, setup, unit, run_id, workers, **more)
        answer = work(*pickle.loads(pickle.dumps((setup, unit, run_id))))
        future.status, future.answer = "finished", pickle.loads(pickle.dumps(answer))
        return future


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A folder of images without a teacher: a class of one image leaves none to hold out."""
    birds = write_birds(tmp_path / "birds")
    for image in range(1, 20):
        (birds / "train" / "train0" / f"{image}.png").unlink()
    return birds


ONLY = ("method=random", "method=ensemble_centroids", "k_shot=1")
"""A method without teachers, and one with."""
ENDS = {"random": "done", "ensemble_centroids": "failed"}


def test_what_a_worker_cannot_train_fails_its_cells_and_is_recorded(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker is at the teachers' cell, and one would help with its teachers."""
    settings = ("n_test_tasks=2", "budget.teacher_epochs=1")
    words = {"suite": "own", "settings": settings, "only": ONLY, "seeds": None, "device": "cpu"}
    places = {"data_dir": None, "dataset_dirs": (f"birds={birds}",)}
    folders = {"cache": tmp_path / "cache", "runs": tmp_path / "runs"}
    plan, request = resolve(words | places | folders, quiet=True)
    request.runs.mkdir()
    monkeypatch.setattr(dask, "_STATES", {})
    client, order = AtOnce("a", "b", "c"), Order(plan, plan.cells, request, Shown(), Keeping())
    crew = Workers(client, order, [], ROOM)
    monkeypatch.setattr(crew, "_wait", lambda seconds: set(crew._at))
    told = [cell.method for cell, _ in share(plan.cells, crew, order.display, order.keeping)]
    found = by_method(request.runs)
    assert {name: one.record.status for name, one in found.items()} == ENDS
    assert sorted(told) == sorted(ENDS)
    reason = found["ensemble_centroids"].record.reason
    assert reason == "class 'train0' of birds has 1 images; a teacher needs at least 2 per class"
    assert [unit.helps for _, _, unit in client.given].count(True) >= 1


@pytest.mark.slow
@pytest.mark.faults
def test_a_teacher_that_fails_fails_its_cells_only(birds: Path, tmp_path: Path) -> None:
    words = [f"--dataset-dir=birds={birds}", "--set=n_test_tasks=8", "--no-mlflow"]
    words += [f"--runs={tmp_path / 'runs'}", f"--cache={tmp_path / 'cache'}", "--no-figures"]
    words += [*(f"--only={one}" for one in ONLY), "--set=budget.teacher_epochs=1"]
    result = bench("run", "own", *words, "--executor=dask")
    found = by_method(tmp_path / "runs")
    assert result.returncode == 1, result.stderr
    assert {name: one.record.status for name, one in found.items()} == ENDS


@pytest.mark.slow
def test_dask_and_inline_agree(trained_cache: Path, tmp_path: Path) -> None:
    only = ["--no-mlflow", "--only=method=random", "--only=method=average"]
    fresh = copy_cache(trained_cache, tmp_path / "fresh")
    ours, theirs = tmp_path / "dask", tmp_path / "inline"
    result = bench(*arguments(trained_cache, ours, "--executor=dask", *only))
    assert result.returncode == 0, result.stderr
    assert "ensemble_centroids" not in result.stdout
    assert bench(*arguments(fresh, theirs, "--threads=1", *only)).returncode == 0
    found, expected = by_method(ours), by_method(theirs)
    assert set(found) == set(expected) == {"random", "average"}
    for name in found:
        assert found[name].record.cell_hash == expected[name].record.cell_hash
        assert found[name].record.device.threads == 1
        np.testing.assert_array_equal(found[name].accuracies(), expected[name].accuracies())
