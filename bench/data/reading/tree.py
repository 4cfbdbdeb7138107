"""The files below a place, alike for a folder, a zip and a tar."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.data.reading.archives import is_tar, open_zip, unpack_tar


@dataclass(frozen=True)
class Tree:
    """The files and empty folders (ending in '/') below a place, and how to read a file."""

    path: Path
    members: list[str]
    read: Callable[[str], bytes]


@contextmanager
def open_tree(path: Path, wanted: Callable[[str], bool] = lambda member: True) -> Iterator[Tree]:
    """Open a folder, a zip or a tar for reading.

    A tar is unpacked into a temporary folder (`TMPDIR`), for the time that the tree is open.

    Args:
        path: the folder or archive.
        wanted: which members of a tar are unpacked.

    Raises:
        BenchError: the file is no archive, or one with members that are not allowed.
    """
    if path.is_dir():
        yield _folder_tree(path, path)
    elif is_tar(path):
        with tempfile.TemporaryDirectory(prefix="purer-bench-") as place:
            unpack_tar(path, Path(place), wanted)
            yield _folder_tree(path, Path(place))
    else:
        with open_zip(path) as (members, read):
            yield Tree(path, sorted(filter(is_visible, members)), read)


def merge(trees: Sequence[Tree]) -> Tree:
    """Return one tree of all members; of equal names the first counts."""
    readers = {member: tree.read for tree in reversed(trees) for member in tree.members}
    return Tree(trees[0].path, sorted(readers), lambda member: readers[member](member))


def _folder_tree(path: Path, folder: Path) -> Tree:
    return Tree(path, sorted(_walk(folder)), lambda member: (folder / member).read_bytes())


def _walk(folder: Path) -> Iterator[str]:
    """Yield the visible files below a folder, and its empty folders with a closing '/'."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = filter(is_visible, folders)
        relative = Path(place).relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        visible = [prefix + name for name in files if is_visible(name)]
        yield from visible
        if prefix and not visible and not folders:
            yield prefix


def is_visible(member: str) -> bool:
    """Tell whether a member is neither hidden nor what macOS adds to archives."""
    parts = PurePosixPath(member).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)
