"""Data sets laid out `<split>/<class>/<image>`, in a folder or straight from a zip."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from bench.data.base import SPLITS, ClassImages, DatasetSource, Listing
from bench.data.digests import DigestMemory
from bench.errors import BenchError
from bench.runtime import available_cores

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLIT_NAMES = {
    "train": "train",
    "meta_train": "train",
    "val": "val",
    "validation": "val",
    "meta_val": "val",
    "test": "test",
    "meta_test": "test",
}
_CHUNK = 50
"""Images that a decoding thread takes at once; single ones cost more than they save."""


@dataclass(frozen=True)
class Tree:
    """The files and empty folders (ending in '/') below a place, and how to read a file."""

    path: Path
    members: list[str]
    read: Callable[[str], bytes]


class FolderSource(DatasetSource):
    """A data set found as `<name>.zip` or `<name>/` in the data folder."""

    def find(self, data_dir: Path | None, explicit: Path | None = None) -> Path | None:
        """Return the zip or folder; see `DatasetSource.find`."""
        return find_one_of(self.name, self.candidates(), data_dir, explicit)

    def candidates(self) -> tuple[str, ...]:
        """Return the names that are looked for in the data folder, first ones first."""
        return (f"{self.name}.zip", self.name)

    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the digest of the zip, or of the relative paths and contents of the images."""
        if not path.is_dir():
            return memory.file(path)
        with open_tree(path) as tree:
            return memory.folder(path, [name for name in tree.members if _is_image(name)])

    @contextmanager
    def contents(self, path: Path) -> Iterator[Listing]:
        """List the classes; images are decoded by one thread a core."""
        with open_tree(path) as tree, ThreadPoolExecutor(min(8, available_cores())) as pool:
            yield {
                split: [
                    ClassImages(
                        name, len(files), partial(_decode, tree, files, self.image_size, pool)
                    )
                    for name, files in classes.items()
                ]
                for split, classes in arrange(tree).items()
            }


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


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder or a zip for reading.

    Raises:
        BenchError: the file is not a zip.
    """
    if path.is_dir():
        yield Tree(path, sorted(_walk(path)), lambda member: (path / member).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        with open(path, "rb") as file:
            start = file.read(24)
        raise BenchError(
            f"'{path}' is not a complete zip (it starts with {start!r}); download it again, and "
            "check that it is the archive and not a web page"
        ) from None
    with archive:
        yield Tree(path, sorted(filter(_is_visible, archive.namelist())), archive.read)


def arrange(tree: Tree) -> Mapping[str, dict[str, list[str]]]:
    """Return the members of every class of every split, all sorted.

    One enclosing folder is allowed, as `zip -r set.zip set/` leaves it.

    Raises:
        BenchError: a split is missing or there twice, or a class has no images.
    """
    roots: dict[str, set[PurePosixPath]] = {split: set() for split in SPLITS}
    found: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for member in tree.members:
        place = _place(member)
        if place is not None:
            root, split, name = place
            roots[split].add(root)
            files = found[split].setdefault(name, [])
            if _is_image(member):
                files.append(member)
    _check(tree.path, roots, found)
    return {split: dict(sorted(found[split].items())) for split in SPLITS}


def _place(member: str) -> tuple[PurePosixPath, str, str] | None:
    """Return a member's split folder, split and class, or None where it belongs to none."""
    parts = PurePosixPath(member).parts
    if member.endswith("/"):
        parts = (*parts, "")
    for depth in (0, 1):
        if len(parts) == depth + 3 and parts[depth] in SPLIT_NAMES:
            root = PurePosixPath(*parts[: depth + 1])
            return root, SPLIT_NAMES[parts[depth]], parts[depth + 1]
    return None


def _check(
    path: Path, roots: Mapping[str, set[PurePosixPath]], found: Mapping[str, dict[str, list[str]]]
) -> None:
    for split in SPLITS:
        if not found[split]:
            raise BenchError(
                f"'{path}' holds no images for split {split}; the layout is "
                "<split>/<class>/<image> with the splits train, val and test "
                "(or meta_train, meta_val, meta_test)"
            )
        if len(roots[split]) > 1:
            names = " and ".join(f"'{root}'" for root in sorted(roots[split]))
            raise BenchError(f"'{path}' holds split {split} twice, as {names}; remove one of them")
        for name, files in found[split].items():
            if not files:
                raise BenchError(
                    f"class '{name}' of split {split} in '{path}' has no images "
                    f"({', '.join(ENDINGS)}); add them or remove the class"
                )


def _decode(tree: Tree, files: list[str], image_size: int, pool: ThreadPoolExecutor) -> np.ndarray:
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(files))):
            images[index] = decode_image(tree, files[index], image_size)

    for _ in pool.map(fill, range(0, len(files), _CHUNK)):
        pass
    return images


def decode_image(tree: Tree, member: str, image_size: int) -> np.ndarray:
    """Return one image as RGB, uint8 (H, W, 3); another size is resized bilinearly.

    Raises:
        BenchError: the image cannot be read; the line names the member.
    """
    from PIL import Image

    size = (image_size, image_size)
    try:
        with Image.open(io.BytesIO(tree.read(member))) as image:
            rgb = image.convert("RGB")
    except Exception as error:  # Pillow and zipfile raise a dozen kinds for damaged input
        reason = " ".join(str(error).split())
        raise BenchError(
            f"image '{member}' in '{tree.path}' cannot be read ({reason}); replace it or "
            "download the archive again"
        ) from error
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _walk(folder: Path) -> Iterator[str]:
    """Yield the visible files below a folder, and its empty folders with a closing '/'."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = filter(_is_visible, folders)
        relative = Path(place).relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        visible = [prefix + name for name in files if _is_visible(name)]
        yield from visible
        if prefix and not visible and not folders:
            yield prefix


def _is_visible(member: str) -> bool:
    parts = PurePosixPath(member).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _is_image(member: str) -> bool:
    return member.lower().endswith(ENDINGS)
