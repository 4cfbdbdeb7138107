"""The decoded form of a data set: one `.npy` per split and `meta.json`, complete or absent.

While it is made it lies in `.<folder>.part/`, with a journal of the classes that are safely
written; a preparation that was killed goes on from there.
"""

from __future__ import annotations

import hashlib
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
from bench.results.files import (
    file_sha256,
    read_checked,
    recall,
    remember,
    stamp,
    sync_folder,
    write_checked,
)

if TYPE_CHECKING:
    from bench.data.base import ClassImages, DatasetSource, Listing, Progress

META = "meta.json"
JOURNAL = "journal.json"
_EVERY = 2.0
"""Seconds between two entries of the journal."""


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
            if problem(folder) is not None:
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
    meta = read_checked(folder / META)
    return {
        name: (part["classes"], part["counts"], np.load(folder / f"{name}.npy", mmap_mode="r"))
        for name, part in meta["splits"].items()
    }


def read_otherwise(folder: Path) -> list[str]:
    """Return what was done to a decoded data set that older versions did not do, sorted."""
    return read_checked(folder / META)["otherwise"]


def problem(folder: Path, deep: bool = False) -> str | None:
    """Say what is wrong with a decoded data set, None where it is intact, '' where it is not there.

    Args:
        folder: of the data set.
        deep: compare the content of all files. Otherwise that of files whose size or modification
            time is not the one that was noted, as after copying; these are then noted anew.
    """
    try:
        meta = read_checked(folder / META)
    except (FileNotFoundError, NotADirectoryError):
        return f"{folder / META} is missing" if folder.is_dir() else ""
    except BenchError as error:
        return str(error)
    stamps = {}
    for name, known in meta["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        stamps[name] = stamp(path)
        changed = stamps[name] != known["stamp"]
        if (deep or changed) and file_sha256(path) != known["sha256"]:
            return f"{path} is damaged: it is not what was written"
    files = {name: {**known, "stamp": stamps[name]} for name, known in meta["files"].items()}
    if files != meta["files"]:
        remember(folder / META, {**meta, "files": files})
    return None


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
            otherwise = _write_splits(source, listing, part, progress)
        files = {
            path.name: {"sha256": file_sha256(path), "stamp": stamp(path)}
            for path in sorted(part.glob("*.npy"))
        }
        facts = {**_describe(source, listing, digest), "files": files, "otherwise": otherwise}
        write_checked(part / META, facts)
        (part / JOURNAL).unlink()
        sync_folder(part)
        if folder.exists():
            folder.rename(folder.parent / f".{folder.name}.old")
        part.rename(folder)
        shutil.rmtree(folder.parent / f".{folder.name}.old", ignore_errors=True)
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
) -> list[str]:
    """Write the images of all splits; return what `ClassImages.otherwise` says of them."""
    journal = _Journal(folder, _describe(source, listing, "")["decoded_with"])
    total = sum(part.count for parts in listing.values() for part in parts)
    done = 0
    for name, parts in listing.items():
        shape = (source.image_size, source.image_size, 3)
        colours = set[tuple[int, ...] | None]()
        file, digest = _resumed(folder / f"{name}.npy", parts, shape, journal, name)
        with file:
            for number, part in enumerate(parts, 1):
                if number > journal.classes(name):
                    images = _read_class(part, shape)
                    colours.add(_only_colour(images))
                    file.write(images.tobytes())
                    digest.update(images.tobytes())
                    journal.otherwise |= part.otherwise
                    journal.wrote(file, name, number, digest, last=number == len(parts))
                else:
                    colours.add(None)
                done += part.count
                if progress is not None:
                    progress(done, total, f"{source.name} {name}")
        if len(colours) == 1 and (colour := colours.pop()) is not None:
            raise BenchError(
                f"all images of split {name} of '{source.name}' are of the one colour {colour}; "
                "look at the files: is what they show in another channel or layer?"
            )
    return sorted(journal.otherwise)


def _only_colour(images: np.ndarray) -> tuple[int, ...] | None:
    """Return the colour that all pixels of images (n, H, W, 3) have, None where they differ."""
    pixels = images.reshape(-1, images.shape[-1])
    return tuple(map(int, pixels[0])) if (pixels == pixels[0]).all() else None


def _resumed(
    path: Path, parts: list[ClassImages], shape: tuple[int, ...], journal: _Journal, split: str
) -> tuple[BinaryIO, hashlib._Hash]:
    """Open a split's file after its header and the classes that are safely there.

    Returns:
        The file, and the digest of these classes' pixels.
    """
    file = path.open("r+b" if journal.classes(split) else "w+b")
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (sum(p.count for p in parts), *shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
    start, digest = file.tell(), hashlib.sha256()
    for part in parts[: journal.classes(split)]:
        digest.update(file.read(part.count * math.prod(shape)))
    if digest.hexdigest() != journal.digest(split):
        journal.forget(split)
        file.seek(start)
        digest = hashlib.sha256()
    file.truncate(file.tell())
    return file, digest


class _Journal:
    """The classes of each split that are safely on the disk: their number and pixels' digest."""

    def __init__(self, folder: Path, decoded_with: dict[str, str]) -> None:
        self._path, self._last = folder / JOURNAL, time.monotonic()
        self._decoded_with = decoded_with
        self._known: dict[str, dict[str, Any]] = {}
        self.otherwise = set[str]()
        """what `ClassImages.otherwise` says of the classes"""
        found = recall(self._path)
        if found.get("decoded_with") == decoded_with:
            self._known, self.otherwise = found["splits"], set(found["otherwise"])

    def classes(self, split: str) -> int:
        """Return the number of classes of a split that need not be read again."""
        return self._known.get(split, {"classes": 0})["classes"]

    def digest(self, split: str) -> str | None:
        """Return the digest of the pixels of these classes, None where there are none."""
        return self._known.get(split, {"sha256": None})["sha256"]

    def forget(self, split: str) -> None:
        """Take note that a split's file is not what was noted."""
        self._known.pop(split, None)

    def wrote(
        self, file: BinaryIO, split: str, classes: int, digest: hashlib._Hash, last: bool
    ) -> None:
        """Note that so many classes were written; every two seconds and at a split's end."""
        if last or time.monotonic() - self._last >= _EVERY:
            file.flush()
            os.fsync(file.fileno())
            self._known[split] = {"classes": classes, "sha256": digest.hexdigest()}
            content = {
                "decoded_with": self._decoded_with,
                "splits": self._known,
                "otherwise": sorted(self.otherwise),
            }
            write_checked(self._path, content)
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
