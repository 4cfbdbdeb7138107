"""Folders that tests share. Without torch: the process that directs the others loads this, too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that the processes of pytest-xdist share; who asks first makes it.

    Args:
        factory: of this process.
        name: of the folder, one for each content.
        make: fills the empty folder, which nothing changes afterwards.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    made = folder.with_name(f"{name}.made")
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def copy_cache(cache: Path, target: Path) -> Path:
    """Copy a cache folder; decoded images (64 MB of glyphs) are linked, so change none in place."""

    def copy(source: str, at: str) -> None:
        (os.link if source.endswith(".npy") else shutil.copy2)(source, at)

    return Path(shutil.copytree(cache, target, copy_function=copy))
