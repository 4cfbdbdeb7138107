"""Data sets laid out `<split>/<class>/<image>`, in a folder, straight from a zip, or from a tar."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from bench.data.base import ClassImages, DatasetSource, Listing, find_one_of
from bench.data.digests import DigestMemory
from bench.data.reading.decoding import ENDINGS, decode_image
from bench.data.reading.tree import Tree, merge, open_tree
from bench.data.sets import SPLITS, ClassSplit
from bench.errors import BenchError
from bench.processes import available_cores

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


SPELLED = "spelling 1"
"""Names of classes got one spelling that older versions took as they were."""
Arrangement = Mapping[str, dict[str, list[str]]]
"""For each split, class name → the members that are its images."""


class FolderSource(DatasetSource):
    """A data set found as `<name>.zip` or `<name>/` in the data folder.

    `split_files` names the files, besides images, that decide what is in which split;
    `inner_archives` those archives that are read in their place where a folder holds them.
    """

    split_files: ClassVar[tuple[str, ...]] = ()
    inner_archives: ClassVar[tuple[str, ...]] = ()

    def find(self, data_dir: Path | None, explicit: Path | None = None) -> Path | None:
        """Return the archive or folder; see `DatasetSource.find`."""
        return find_one_of(self.name, self.candidates(), data_dir, explicit)

    def candidates(self) -> tuple[str, ...]:
        """Return the names that are looked for in the data folder, first ones first."""
        return (f"{self.name}.zip", self.name)

    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the digest of the archive, or of the relative paths and contents of the files.

        Raises:
            BenchError: the folder is not laid out as the data set is.
        """
        if not path.is_dir():
            return memory.file(path)
        own = {*self.split_files, *self.inner_archives}
        with open_tree(path) as tree:
            if not self.inner_archives:
                self.arrange(tree)  # what is wrong with it is said each time, decoded or not
            files = [m for m in tree.members if is_image(m) or PurePosixPath(m).name in own]
            return memory.folder(path, files)

    def is_part(self, member: str) -> bool:
        """Tell whether a file belongs to the data set: an image, or one of `split_files`."""
        return is_image(member) or PurePosixPath(member).name in self.split_files

    @contextmanager
    def open_tree(self, path: Path) -> Iterator[Tree]:
        """Open the source, and in a folder the archives that it holds."""
        with ExitStack() as stack:
            tree = stack.enter_context(open_tree(path, self.is_part))
            inner = [m for m in tree.members if PurePosixPath(m).name in self.inner_archives]
            parts = [open_tree(path / m, self.is_part) for m in inner if path.is_dir()]
            yield merge([tree, *(stack.enter_context(part) for part in parts)])

    @contextmanager
    def contents(self, path: Path) -> Iterator[Listing]:
        """List the classes; images are decoded by one thread a core."""
        with (
            self.open_tree(path) as tree,
            ThreadPoolExecutor(min(8, available_cores())) as pool,
        ):
            yield {
                split: [
                    _class_images(name, files, tree, self.image_size, pool)
                    for name, files in classes.items()
                ]
                for split, classes in self.arrange(tree).items()
            }

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every class of every split; see `arrange_splits`."""
        return arrange_splits(tree)


def arrange_splits(tree: Tree) -> Arrangement:
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
            files = found[split].setdefault(one_spelling(name), [])
            if is_image(member):
                files.append(member)
    _check(tree.path, roots, found)
    return {split: dict(sorted(found[split].items())) for split in SPLITS}


def holds_splits(tree: Tree) -> bool:
    """Tell whether any member lies in a folder named like a split."""
    return any(_place(member) is not None for member in tree.members)


def arrange_by_class(tree: Tree, split: ClassSplit) -> Arrangement:
    """Return the members of every class of an official split, found by their folder's name.

    The class's folder may lie anywhere; what is in other folders is left out.

    Raises:
        BenchError: a class is there twice.
    """
    owner = {name: part for part, names in split.items() for name in names}
    found: dict[str, dict[str, list[str]]] = {part: {} for part in split}
    places: dict[str, PurePosixPath] = {}
    depth = 1 + max((name.count("/") for name in owner), default=0)
    for member in filter(is_image, tree.members):
        folder = PurePosixPath(member).parent
        name = "/".join(folder.parts[-depth:])
        if name in owner:
            if places.setdefault(name, folder) != folder:
                raise BenchError(
                    f"'{tree.path}' holds class '{name}' twice, as '{places[name]}' and "
                    f"'{folder}'; remove one of them"
                )
            found[owner[name]].setdefault(name, []).append(member)
    return {part: dict(sorted(classes.items())) for part, classes in found.items()}


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


def one_spelling(name: str) -> str:
    """Return a name with accents as part of their letters; some systems keep them apart."""
    return unicodedata.normalize("NFC", name)


def _class_images(
    name: str, files: list[str], tree: Tree, image_size: int, pool: ThreadPoolExecutor
) -> ClassImages:
    folders = {PurePosixPath(file).parent.name for file in files}
    otherwise = {SPELLED} if any(one_spelling(one) != one for one in folders) else set[str]()
    read = partial(_decode, tree, files, image_size, pool, otherwise)
    return ClassImages(name, len(files), read, otherwise)


def _decode(
    tree: Tree, files: list[str], image_size: int, pool: ThreadPoolExecutor, otherwise: set[str]
) -> np.ndarray:
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(files))):
            images[index] = decode_image(tree, files[index], image_size, otherwise)

    for _ in pool.map(fill, range(0, len(files), _CHUNK)):
        pass
    return images


def is_image(member: str) -> bool:
    """Tell whether a member is named like an image."""
    return member.lower().endswith(ENDINGS)
