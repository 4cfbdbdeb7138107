"""CIFAR-FS: the 100 classes of CIFAR-100, 600 images each, split 64/16/20.

Source: Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.data.base import ClassImages, Download, Listing
from bench.data.digests import DigestMemory
from bench.data.reading.archives import is_tar, unpack_tar
from bench.data.reading.folders import FolderSource
from bench.data.sets import class_split
from bench.errors import BenchError

OFFICIAL = "cifar-100-python"
_MEMBERS = ("meta", "test", "train")


class CifarFs(FolderSource):
    """CIFAR-FS from a zip or folder of images, or from the official CIFAR-100 archive."""

    name = "cifar_fs"
    image_size = 32
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
    licence = "none stated; images collected for research (Krizhevsky, 2009)"
    how_to_get = (
        "put cifar_fs.zip, or cifar-100-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html, into the folder given with --data DIR"
    )
    expected = {"train": (64, 600), "val": (16, 600), "test": (20, 600)}
    official = "cifar_fs"
    downloads = (
        Download(
            f"{OFFICIAL}.tar.gz",
            f"https://www.cs.toronto.edu/~kriz/{OFFICIAL}.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
        ),
    )
    known_digests = {
        "8a2f2c14323087dcc8ce4b05e53ec0c4a076f75961d322e9d2426960d9006922": (
            "a known repack (lossless WebP)"
        )
    }

    def candidates(self) -> tuple[str, ...]:
        """Return the repacked forms first, then the official ones."""
        return (*super().candidates(), OFFICIAL, f"{OFFICIAL}.tar.gz")

    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the digest of the archive, or of the files of a folder."""
        if _is_official_folder(path):
            return memory.folder(path, _MEMBERS)
        return super().source_digest(path, memory)

    @contextmanager
    def contents(self, path: Path) -> Iterator[Listing]:
        """List the classes, whichever form the source has."""
        if is_tar(path):
            with tempfile.TemporaryDirectory(prefix="purer-bench-") as folder:
                unpack_tar(path, Path(folder), lambda name: name.startswith(f"{OFFICIAL}/"))
                yield read_official(Path(folder) / OFFICIAL)
        elif _is_official_folder(path):
            yield read_official(path)
        else:
            with super().contents(path) as listing:
                yield listing


def official_split() -> dict[str, list[str]]:
    """Return the class names of each split."""
    return {split: list(classes) for split, classes in class_split("cifar_fs").items()}


def read_official(path: Path) -> Listing:
    """Read the folder `cifar-100-python`, checked by torchvision, and split its classes.

    Raises:
        BenchError: a file is missing or differs from the official one.
    """
    from torchvision.datasets import CIFAR100

    try:
        parts = [CIFAR100(path.parent, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise BenchError(
            f"'{path}' is not the official CIFAR-100 (python version): files are missing or "
            "differ; unpack cifar-100-python.tar.gz again and keep the folder's name"
        ) from error
    images = np.concatenate([part.data for part in parts])
    labels = np.concatenate([part.targets for part in parts])
    return split_by_class(images, labels, parts[0].classes, official_split())


def split_by_class(
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    splits: Mapping[str, Sequence[str]],
) -> Listing:
    """Sort labelled images into splits; images of a class keep their order.

    Args:
        images: uint8 (N, H, W, 3).
        labels: (N,) indices into `names`.
        names: the class names.
        splits: the names of the classes of each split.

    Raises:
        BenchError: a split names a class that there is not.
    """
    unknown = sorted({name for part in splits.values() for name in part} - set(names))
    if unknown:
        raise BenchError(f"class '{unknown[0]}' of the split is not among the images' classes")
    index = {name: i for i, name in enumerate(names)}
    return {
        split: [_class(images, labels == index[name], name) for name in sorted(part)]
        for split, part in splits.items()
    }


def _class(images: np.ndarray, members: np.ndarray, name: str) -> ClassImages:
    return ClassImages(name, int(members.sum()), lambda: images[members])


def _is_official_folder(path: Path) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in _MEMBERS)
