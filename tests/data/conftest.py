"""Small data sets of known pixels, as folders and as zips."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.reading.folders import FolderSource

SIZE = 8


class Tiny(FolderSource):
    """Three, two and two classes of unequal size, 8 px."""

    name = "tiny"
    image_size = SIZE
    mean = (0.5, 0.4, 0.3)
    std = (0.2, 0.3, 0.4)
    licence = "made here"
    how_to_get = "make it"
    expected = {"train": (3, None), "val": (2, None), "test": (2, None)}


def tiny_pixels() -> dict[str, dict[str, np.ndarray]]:
    """Return uint8 (n, 8, 8, 3) for every class of every split, all images different."""
    generator = np.random.default_rng(7)
    sizes = {"train": {"b": 4, "a": 3, "c": 5}, "val": {"e": 2, "d": 3}, "test": {"g": 6, "f": 2}}
    return {
        split: {
            name: generator.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)
            for name, n in classes.items()
        }
        for split, classes in sizes.items()
    }


def write_tree(folder: Path, pixels, split_names=lambda split: split, ending: str = "png") -> Path:
    """Write pixels as `<split>/<class>/<number>.<ending>`."""
    for split, classes in pixels.items():
        for name, images in classes.items():
            place = folder / split_names(split) / name
            place.mkdir(parents=True)
            for number, image in enumerate(images):
                options = {"lossless": True} if ending == "webp" else {}
                Image.fromarray(image).save(place / f"{number:03d}.{ending}", **options)
    return folder


def zip_tree(folder: Path, archive: Path, prefix: str = "") -> Path:
    """Zip a folder, folders' own entries included, last entries first."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def pixels() -> dict[str, dict[str, np.ndarray]]:
    return tiny_pixels()


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture
def tree(tmp_path: Path, pixels) -> Path:
    """A data folder that holds `tiny/`."""
    write_tree(tmp_path / "data" / "tiny", pixels)
    return tmp_path / "data"


@pytest.fixture
def writers() -> tuple[Callable[..., Path], Callable[..., Path]]:
    """`write_tree` and `zip_tree`."""
    return write_tree, zip_tree
