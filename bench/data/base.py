"""The base class of data sets: three splits of labelled images, and their source.

`DatasetSource` is the contract of the entry-point group `purer_bench.datasets`. Nothing here
imports torch: a second run of a finished suite needs names and digests only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.data.digests import DigestMemory
from bench.data.sets import ClassSplit, class_split
from bench.errors import BenchError
from bench.results.files import content_hash

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's pixels in [0, 1], by channel: what natural images of several
data sets are normalised by."""

READER_VERSION = 1
"""Counts the changes to decoding that alter pixels or order; part of every digest."""

Progress = Callable[[int, int, str], None]
"""Called with images done, images in all, and the data set's and split's name."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images of some classes, class after class.

    `classes` are sorted; class i has `counts[i]` images, which are the rows from `offsets[i]` of
    `images`, uint8 (N, H, W, 3), memory-mapped and read-only.
    """

    name: str
    classes: tuple[str, ...]
    counts: np.ndarray
    offsets: np.ndarray
    images: np.ndarray

    def class_images(self, index: int) -> np.ndarray:
        """Return a view of the images of class `index`, uint8 (n, H, W, 3)."""
        start = self.offsets[index]
        return self.images[start : start + self.counts[index]]

    def rows(self, class_indices: np.ndarray, image_indices: np.ndarray) -> np.ndarray:
        """Return the rows of `images`, int64, for indices of classes and within classes.

        Args:
            class_indices: integers of any shape that broadcasts with `image_indices`.
            image_indices: integers within each class.

        Raises:
            BenchError: an index lies outside the split or the class.
        """
        classes, images = np.broadcast_arrays(class_indices, image_indices)
        if classes.size and (classes.min() < 0 or classes.max() >= len(self.classes)):
            raise BenchError(
                f"class index {_outside(classes, len(self.classes))} is outside the "
                f"{len(self.classes)} classes of split {self.name}; draw the tasks from this split"
            )
        wrong = (images < 0) | (images >= self.counts[classes])
        if wrong.any():
            index = classes[wrong].flat[0]
            raise BenchError(
                f"image {images[wrong].flat[0]} is outside the {self.counts[index]} images of "
                f"class {index} of split {self.name}; draw the tasks from this split"
            )
        return self.offsets[classes] + images

    def gather(self, class_indices: np.ndarray, image_indices: np.ndarray) -> np.ndarray:
        """Return a copy of images, uint8 (..., H, W, 3), for indices as in `rows`."""
        return np.asarray(self.images)[self.rows(class_indices, image_indices)]


def make_split(
    name: str, classes: Sequence[str], counts: Sequence[int] | np.ndarray, images: np.ndarray
) -> Split:
    """Return the split of images (N, H, W, 3) that lie class after class, `counts[i]` each."""
    sizes = np.asarray(counts, dtype=np.int64)
    return Split(name, tuple(classes), sizes, np.cumsum(sizes) - sizes, images)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set, opened.

    `digest` is the SHA-256 (hex) that identifies its content; `mean` and `std` (3,) are for pixels
    in [0, 1]; `image_size` is the side in pixels.
    """

    name: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, Split]
    digest: str
    licence: str


@dataclass(frozen=True)
class Download:
    """A file that the data set's authors offer: its name here, its address, its digest there.

    `digest` is `md5:…` or `sha256:…` as published; it tells the right file from another, and
    `bench data verify` compares a file of that name with it.
    """

    file: str
    url: str
    digest: str


@dataclass(frozen=True)
class ClassImages:
    """One class of a source: `read()` returns its images, uint8 (count, H, W, 3).

    `otherwise` holds after that what was done to them that older versions did not do, each with
    its version. It enters the digest of the data, so that only sets that are read otherwise get
    another one.
    """

    name: str
    count: int
    read: Callable[[], np.ndarray]
    otherwise: set[str] = field(default_factory=set)


Listing = Mapping[str, list[ClassImages]]
"""The classes of each split, sorted by name."""


class DatasetSource(ABC):
    """Where a data set comes from and how it is read. One subclass, one entry point.

    `expected` gives (classes, images a class or None) for each split; `official` names the file
    of the class split in `splits/`; `n_images` is the number of all images, where known;
    `known_digests` names source digests that have been checked; `downloads` lists what can be
    fetched from the authors; `how_to_get` completes the sentence of a missing set;
    `reader_version` is part of the digest, and counts the changes of how this set is read.
    """

    name: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    how_to_get: ClassVar[str]
    expected: ClassVar[Mapping[str, tuple[int, int | None]]]
    official: ClassVar[str | None] = None
    n_images: ClassVar[int | None] = None
    known_digests: ClassVar[Mapping[str, str]] = {}
    downloads: ClassVar[Sequence[Download]] = ()
    reader_version: ClassVar[int] = READER_VERSION

    def class_split(self) -> ClassSplit:
        """Return the official classes of each split; nothing where there is no such split."""
        return {} if self.official is None else class_split(self.official)

    @abstractmethod
    def find(self, data_dir: Path | None, explicit: Path | None = None) -> Path | None:
        """Return the file or folder that holds the data set, or None where there is none.

        Args:
            data_dir: the folder of all data sets (`--data`), or None.
            explicit: the data set's own place (`--dataset-dir NAME=PATH`), or None.

        Raises:
            BenchError: a place was named that does not exist.
        """

    @abstractmethod
    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the SHA-256 (hex) that identifies the source; quick when remembered."""

    @abstractmethod
    def contents(self, path: Path) -> AbstractContextManager[Listing]:
        """List the classes; their images can be read while the context is open."""

    def sample_digest(self, path: Path) -> str:
        """Return a digest of a sample of the images as they would be made now, '' by default.

        For sets that are drawn by code: images in the cache with another sample are left alone and
        drawn again, so that they cannot outlive the code that drew them.
        """
        return ""

    def locate(self, data_dir: Path | None, explicit: Path | None = None) -> Path:
        """Return what `find` finds.

        Raises:
            BenchError: the data set is not there; the line says how to get it.
        """
        path = self.find(data_dir, explicit)
        if path is None:
            place = f"in '{data_dir}'" if data_dir else "(no data folder is set: --data DIR)"
            raise BenchError(f"data set '{self.name}' was not found {place}; {self.how_to_get}")
        return path

    def digest(self, cache: Path, path: Path) -> str:
        """Return the digest of the data as this version reads it (see `ImageData`)."""
        source = self.source_digest(path, DigestMemory(cache))
        return content_hash([self.name, self.image_size, source, self.reader_version])


def nominal_data(source: DatasetSource) -> ImageData:
    """Return a data set with the published counts and blank images that take no memory."""
    n_classes = sum(n for n, _ in source.expected.values())
    average = round((source.n_images or 0) / n_classes)
    splits = {}
    for name, (n, images) in source.expected.items():
        counts = np.full(n, images or average)
        shape = (int(counts.sum()), source.image_size, source.image_size, 3)
        blank = np.broadcast_to(np.uint8(0), shape)
        splits[name] = make_split(name, [str(i) for i in range(n)], counts, blank)
    return ImageData(
        source.name, source.image_size, source.mean, source.std, splits, "missing", source.licence
    )


def _outside(values: np.ndarray, end: int) -> int:
    return int(values[(values < 0) | (values >= end)].flat[0])


def find_one_of(
    name: str, candidates: tuple[str, ...], data_dir: Path | None, explicit: Path | None
) -> Path | None:
    """Return the explicit place, or the first candidate that the data folder holds, or None.

    Raises:
        BenchError: a place was named that does not exist.
    """
    if explicit is not None:
        if not explicit.exists():
            raise BenchError(
                f"'{explicit}' does not exist; name the folder or archive of data set '{name}', "
                f"as in --dataset-dir {name}=PATH"
            )
        return explicit
    if data_dir is None:
        return None
    if not data_dir.is_dir():
        raise BenchError(
            f"data folder '{data_dir}' is not a folder; name the one that holds "
            f"{' or '.join(candidates)} with --data DIR"
        )
    return next((data_dir / c for c in candidates if (data_dir / c).exists()), None)
