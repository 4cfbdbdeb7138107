"""One run of the command line, and the same parts made from Python, in folders of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import bench
from bench.cli.main import main
from bench.contract import Budget
from bench.results.find import find_records
from bench.suites.protocols import budget
from tests.api.small import COUNTS, METHODS, SETTINGS
from tests.folders import copy_cache


@pytest.fixture(scope="session")
def small() -> Budget:
    return budget("micro").model_copy(update=COUNTS)


@pytest.fixture(scope="session")
def by_command(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The records of a run from the command line, and its folders."""
    folder = tmp_path_factory.mktemp("by-command")
    copy_cache(glyphs_cache, folder / "cache")
    words = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    words += [f"--only=method={method}" for method in METHODS]
    words += [f"--runs={folder / 'runs'}", f"--cache={folder / 'cache'}"]
    with pytest.raises(SystemExit) as end:
        main(
            [
                "run",
                "micro",
                "--jobs=1",
                "--device=cpu",
                "--no-mlflow",
                "--no-figures",
                "--json",
                *words,
            ]
        )
    assert end.value.code == 0
    stored = {one.record.method: one for one in find_records(folder / "runs")}
    return SimpleNamespace(stored=stored, runs=folder / "runs", cache=folder / "cache")


@pytest.fixture(scope="session")
def in_python(
    glyphs_cache: Path, small: Budget, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Data and a trained pool, in a cache that knows nothing of the command line's."""
    cache = tmp_path_factory.mktemp("in-python") / "cache"
    copy_cache(glyphs_cache, cache)
    data = bench.load_data("glyphs", cache=cache)
    pool = bench.train_pool(data, budget=small, device="cpu", cache=cache)
    return SimpleNamespace(data=data, pool=pool, cache=cache)
