"""The decoded form of a data set: one `.npy` per split and `meta.json`, complete or absent.

While it is made it lies in `.<folder>.part/`, with a journal of the classes that are safely
written; a preparation that was killed goes on from there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bench.errors import BenchError
from bench.leases import waiting
from bench.results.files import sync_folder, write_json

if TYPE_CHECKING:
    from bench.data.base import ClassImages, DatasetSource, Listing, Progress

META = "meta.json"
JOURNAL = "journal.json"
_EVERY = 2.0
"""Seconds between two entries of the journal."""


def is_complete(folder: Path) -> bool:
    """Tell whether a folder holds a decoded data set; folders appear by one rename."""
    return (folder / META).is_file()


def build(
    source: DatasetSource, path: Path, folder: Path, digest: str, progress: Progress | None
) -> None:
    """Decode a data set into a folder; processes that want the same one wait for one another.

    Raises:
        BenchError: a file cannot be read or written, or the source is incomplete or damaged.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting(folder.with_name(f"{folder.name}.lease"), f"the decoding of {source.name}"):
            if not is_complete(folder):
                _build_alone(source, path, folder, digest, progress)
    except OSError as error:
        raise BenchError(
            f"decoding '{path}' into '{folder.parent}' failed ({error.strerror or error}); check "
            "that both can be reached and free space, or choose another cache with --cache DIR"
        ) from error


def load(folder: Path) -> dict[str, tuple[list[str], list[int], np.ndarray]]:
    """Return class names, images per class and the memory-mapped images of each split.

    Raises:
        BenchError: the folder is damaged.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        return {
            name: (part["classes"], part["counts"], _map(folder / f"{name}.npy", part["counts"]))
            for name, part in meta["splits"].items()
        }
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise BenchError(
            f"decoded data in '{folder}' is damaged ({first}); delete that folder"
        ) from error


def _map(path: Path, counts: list[int]) -> np.ndarray:
    images = np.load(path, mmap_mode="r")
    if len(images) != sum(counts):
        raise ValueError(f"{path.name} holds {len(images)} images, not {sum(counts)}")
    return images


def _build_alone(
    source: DatasetSource, path: Path, folder: Path, digest: str, progress: Progress | None
) -> None:
    part = folder.parent / f".{folder.name}.part"
    for stale in folder.parent.glob(f".{folder.name}.*"):
        if stale != part:
            shutil.rmtree(stale, ignore_errors=True)
    part.mkdir(exist_ok=True)
    try:
        with source.contents(path) as listing:
            _check_counts(source, path, listing)
            _write_splits(source, listing, part, progress)
        write_json(part / META, _describe(source, listing, digest))
        (part / JOURNAL).unlink()
        sync_folder(part)
        part.rename(folder)
        sync_folder(folder.parent)
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_counts(source: DatasetSource, path: Path, listing: Listing) -> None:
    from bench.data.verify import source_findings

    for finding in source_findings(source, listing):
        if finding.level == "error":
            raise BenchError(
                f"data set '{source.name}' in '{path}' is incomplete: {finding.text}; "
                f"{source.how_to_get}"
            )


def _write_splits(
    source: DatasetSource, listing: Listing, folder: Path, progress: Progress | None
) -> None:
    journal = _Journal(folder, _describe(source, listing, "")["decoded_with"])
    total = sum(part.count for parts in listing.values() for part in parts)
    done = 0
    for name, parts in listing.items():
        shape = (source.image_size, source.image_size, 3)
        with _resumed(folder / f"{name}.npy", parts, shape, journal.classes(name)) as file:
            for number, part in enumerate(parts, 1):
                if number > journal.classes(name):
                    file.write(_read_class(part, shape).tobytes())
                    journal.wrote(file, name, number, last=number == len(parts))
                done += part.count
                if progress is not None:
                    progress(done, total, f"{source.name} {name}")


def _resumed(
    path: Path, parts: list[ClassImages], shape: tuple[int, ...], classes: int
) -> BinaryIO:
    """Open a split's file after its header and the classes that are safely there."""
    file = path.open("r+b" if classes else "w+b")
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (sum(p.count for p in parts), *shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(sum(p.count for p in parts[:classes]) * math.prod(shape), os.SEEK_CUR)
    file.truncate()
    return file


class _Journal:
    """The number of classes of each split that are safely on the disk."""

    def __init__(self, folder: Path, decoded_with: dict[str, str]) -> None:
        self._path, self._last = folder / JOURNAL, time.monotonic()
        self._decoded_with, self._classes = decoded_with, dict[str, int]()
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["decoded_with"] == decoded_with:
                self._classes = dict(found["classes"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def classes(self, split: str) -> int:
        """Return the number of classes of a split that need not be read again."""
        return self._classes.get(split, 0)

    def wrote(self, file: BinaryIO, split: str, classes: int, last: bool) -> None:
        """Note that so many classes were written; every two seconds and at a split's end."""
        if last or time.monotonic() - self._last >= _EVERY:
            file.flush()
            os.fsync(file.fileno())
            self._classes[split] = classes
            content = {"decoded_with": self._decoded_with, "classes": self._classes}
            write_json(self._path, content)
            self._last = time.monotonic()


def _read_class(part: ClassImages, shape: tuple[int, ...]) -> np.ndarray:
    images = part.read()
    if images.dtype != np.uint8 or images.shape != (part.count, *shape):
        raise BenchError(
            f"class '{part.name}' was read as {images.dtype} {images.shape} but announced as "
            f"uint8 {(part.count, *shape)}; repair the plug-in that offers it"
        )
    return images


def _describe(source: DatasetSource, listing: Listing, digest: str) -> dict[str, Any]:
    return {
        "name": source.name,
        "digest": digest,
        "image_size": source.image_size,
        "licence": source.licence,
        "decoded_with": {"pillow": metadata.version("pillow"), "numpy": np.__version__},
        "splits": {
            name: {
                "classes": [part.name for part in parts],
                "counts": [part.count for part in parts],
            }
            for name, parts in listing.items()
        },
    }
