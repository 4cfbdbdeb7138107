"""The decoded form of a data set: one `.npy` a split and `meta.json`, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench.records import sync_folder, write_json

if TYPE_CHECKING:
    from bench.data.base import ClassImages, DatasetSource, Listing, Progress

META = "meta.json"


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
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(folder) + ".lock")
        with lock:
            if not is_complete(folder):
                _build_alone(source, path, folder, digest, progress)
    except OSError as error:
        raise BenchError(
            f"decoding '{path}' into '{folder.parent}' failed ({error.strerror or error}); check "
            "that both can be reached and free space, or choose another cache with --cache DIR"
        ) from error


def load(folder: Path) -> dict[str, tuple[list[str], list[int], np.ndarray]]:
    """Return class names, images a class and the memory-mapped images of each split.

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
    for stale in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with source.contents(path) as listing:
            _check_counts(source, path, listing)
            _write_splits(source, listing, temporary, progress)
        write_json(temporary / META, _describe(source, listing, digest))
        os.chmod(temporary, 0o755)
        sync_folder(temporary)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_counts(source: DatasetSource, path: Path, listing: Listing) -> None:
    from bench.data.verify import count_findings

    for finding in count_findings(source.expected, listing):
        if finding.level == "error":
            raise BenchError(
                f"data set '{source.name}' in '{path}' is incomplete: {finding.text}; "
                f"{source.how_to_get}"
            )


def _write_splits(
    source: DatasetSource, listing: Listing, folder: Path, progress: Progress | None
) -> None:
    total = sum(part.count for parts in listing.values() for part in parts)
    done = 0
    for name, parts in listing.items():
        with open(folder / f"{name}.npy", "wb") as file:
            n_images = sum(part.count for part in parts)
            shape = (n_images, source.image_size, source.image_size, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(_read_class(part, shape[1:]).tobytes())
                done += part.count
                if progress is not None:
                    progress(done, total, f"{source.name} {name}")
            file.flush()
            os.fsync(file.fileno())


def _read_class(part: ClassImages, shape: tuple[int, ...]) -> np.ndarray:
    images = part.read()
    if images.dtype != np.uint8 or images.shape != (part.count, *shape):
        raise BenchError(
            f"class '{part.name}' was read as {images.dtype} {images.shape} but announced as "
            f"uint8 {(part.count, *shape)}; repair the plug-in that offers it"
        )
    return images


def _describe(source: DatasetSource, listing: Listing, digest: str) -> dict:
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
