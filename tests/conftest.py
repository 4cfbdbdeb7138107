"""Where tests find stored numbers and real images, and why they skip where there are none."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from bench import registry
from tests.folders import copy_cache, shared_folder
from tests.processes import close_place, open_place

if TYPE_CHECKING:
    import torch


def pytest_configure(config: pytest.Config) -> None:
    """Hide the plug-ins of other distributions that happen to be installed.

    Runs compute in the process of the test, unless it says otherwise: a new one imports torch.
    There is no terminal, whose size the processes of pytest-xdist would say to be 80 columns.
    Nothing waits for the disk: no test looks at what outlives a power cut.
    """
    os.environ["PURER_BENCH_JOBS"] = "1"
    os.fsync = lambda file: None
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    groups = {f"purer_bench.{kind}s" for kind in get_args(registry.Kind)}
    points = offered(groups)
    foreign = {point.dist.name for point in points if point.dist} - {registry.OWN}

    def visible() -> EntryPoints:
        points = offered(groups)
        return EntryPoints(one for one in points if not (one.dist and one.dist.name in foreign))

    registry.entry_points = visible
    if (pipe := open_place()) is not None:
        config.add_cleanup(lambda: close_place(pipe))


def pytest_collection_finish() -> None:
    """Spare the looks for garbage what the imports have made: it stays to the end.

    And look less often: graphs of gradients are many objects, and few of them lie in circles.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure() -> None:
    """Let all be collected at the end, as libraries expect that count what is left."""
    gc.unfreeze()


def offered(groups: Iterable[str]) -> list[EntryPoint]:
    """Return the installed entry points of some groups."""
    found = entry_points()
    return [point for group in groups for point in found.select(group=group)]


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals that `nohup`, or a script's `&`, had these tests ignore are heard during a test."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The stored numbers of the published implementation, by name."""
    folder = Path(os.environ.get("PURER_BENCH_GOLDEN", SHARED / "golden"))
    path = folder / "conv4.npz"
    if not path.exists():
        pytest.skip(f"no golden numbers at {path}; set PURER_BENCH_GOLDEN to their folder")
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real image sets."""
    folder = Path(os.environ.get("PURER_BENCH_DATA", SHARED / "data"))
    if not (folder / "cifar_fs.zip").exists():
        pytest.skip(f"no real image sets in {folder}; set PURER_BENCH_DATA to their folder")
    return folder


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device("cuda")


@pytest.fixture(scope="session", autouse=True)
def _quiet_surroundings() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def glyphs_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the drawn glyphs and nothing else; copy it to change it."""
    from bench.data.sets.glyphs import Glyphs
    from bench.data.sources import open_data

    return shared_folder(tmp_path_factory, "glyphs", lambda cache: open_data(Glyphs(), cache))


@pytest.fixture
def cache(glyphs_cache: Path, tmp_path: Path) -> Path:
    """A cache folder of the test's own, with the glyphs in it."""
    return copy_cache(glyphs_cache, tmp_path / "cache")


@pytest.fixture
def read_only() -> Callable[[Path], AbstractContextManager[None]]:
    """Give a context in which nothing below a folder can be written, not by root either."""
    return _read_only


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """As root, become nobody, for whom the folders above and the environment are opened for good.

    They are not closed again: another process of the tests may be in this context as well.
    """
    below = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in below}
    is_root = os.geteuid() == 0
    if is_root:
        prefix = Path(sys.prefix).resolve()
        for path in (*folder.parents, prefix, *prefix.parents):
            mode = path.stat().st_mode
            if mode & 0o555 != 0o555:
                if path in (Path.home(), *Path.home().parents):
                    pytest.skip(f"nobody cannot read {path}, which holds the environment")
                path.chmod(mode | 0o555)
    for path in below:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs, which takes seconds to make; copy it to change it."""
    from bench.results.mlflow import Tracker
    from bench.results.mlflow_store import DATABASE, Store

    return shared_folder(tmp_path_factory, "store", lambda at: Tracker(Store(at))) / DATABASE
