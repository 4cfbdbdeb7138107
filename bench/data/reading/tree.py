"""The files below a place, alike for a folder, a zip and a tar."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.data.reading.archives import is_tar, open_zip, unpack_tar
from bench.errors import BenchError


@dataclass(frozen=True)
class Tree:
    """The files and empty folders (ending in '/') below a place, and how to read a file.

    `hidden` are files that are no members because a name begins with a dot.
    """

    path: Path
    members: list[str]
    read: Callable[[str], bytes]
    hidden: Sequence[str] = ()


Place = tuple[int, int]
NOT_OWN = frozenset(
    (
        *("__MACOSX", ".git", ".hg", ".svn", ".ipynb_checkpoints", ".thumbnails", ".AppleDouble"),
        *(".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".@__thumb", ".cache", ".venv"),
    )
)
"""Folders that systems and programs add, whose images are none of the user's."""


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
            yield _tree(path, members, read)


def merge(trees: Sequence[Tree]) -> Tree:
    """Return one tree of all members; of equal names the first counts."""
    readers = {member: tree.read for tree in reversed(trees) for member in tree.members}
    hidden = sorted(member for tree in trees for member in tree.hidden)
    return Tree(trees[0].path, sorted(readers), lambda member: readers[member](member), hidden)


def _folder_tree(path: Path, folder: Path) -> Tree:
    return _tree(path, list(_walk(folder, path)), lambda member: (folder / member).read_bytes())


def _tree(path: Path, found: list[str], read: Callable[[str], bytes]) -> Tree:
    hidden = [m for m in found if not is_visible(m) and not m.endswith("/") and _is_own(m)]
    return Tree(path, sorted(filter(is_visible, found)), read, sorted(hidden))


def _walk(
    folder: Path, named: Path, prefix: str = "", above: tuple[Place, ...] = ()
) -> Iterator[str]:
    """Yield the files below a folder, and its empty folders with a closing '/'; links are followed.

    Args:
        folder: the folder.
        named: the place as the user knows it, for errors.
        prefix: of the folder under way, with a closing '/'.
        above: what identifies the folders that hold it.

    Raises:
        BenchError: a link leads nowhere, or to a folder that holds it; a name is not UTF-8.
    """
    status = (folder / prefix).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise BenchError(
            f"link '{prefix.rstrip('/')}' in '{named}' leads to a folder that holds it; remove it"
        )
    visible = 0
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            member = _checked(prefix + entry.name, named)
            visible += is_visible(member)
            if _leads_nowhere(entry):
                target = Path(entry.path).readlink()
                raise BenchError(
                    f"link '{member}' in '{named}' leads to '{target}', which is not there; "
                    "remove it, or bring back what it named"
                )
            if not entry.is_dir():
                yield member
            elif entry.name not in NOT_OWN:
                yield from _walk(folder, named, f"{member}/", (*above, here))
    if prefix and not visible:
        yield prefix


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()


def _checked(member: str, named: Path) -> str:
    """Return a name that is UTF-8."""
    try:
        member.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(member).decode("utf-8", "backslashreplace")
        raise BenchError(
            f"the name '{shown}' in '{named}' is not UTF-8; rename it, as convmv does for all names"
        ) from None
    return member


def is_visible(member: str) -> bool:
    """Tell whether a member is neither hidden nor what systems add to folders and archives."""
    parts = PurePosixPath(member).parts
    return not any(part.startswith(".") or part in NOT_OWN for part in parts)


def _is_own(member: str) -> bool:
    """Tell whether a hidden member may be the user's all the same; macOS's begin with `._`."""
    path = PurePosixPath(member)
    return not path.name.startswith("._") and NOT_OWN.isdisjoint(path.parts)
