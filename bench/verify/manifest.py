"""`MANIFEST.json`: the digests of all cells of a folder, where they hold no `DONE`."""

from __future__ import annotations

import json
import stat
from pathlib import Path, PurePosixPath

from bench.errors import BenchError
from bench.results.files import file_sha256, write_json
from bench.results.find import cell_folders

MANIFEST = "MANIFEST.json"
VERSION = 1
LARGEST = 16 * 2**20
"""Bytes of a manifest, a seal or a description that are still read."""


def manifest_of(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the cells below a folder, by relative path."""
    files = {}
    for folder in sorted(cell_folders(root)):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                files[path.relative_to(root).as_posix()] = file_sha256(path)
    return files


def write_manifest(root: Path) -> Path:
    """Write the manifest of a folder and return its path."""
    write_json(root / MANIFEST, {"version": VERSION, "files": manifest_of(root)})
    return root / MANIFEST


def read_manifest(root: Path) -> dict[str, str] | None:
    """Return the digests by relative path, None where there is no manifest.

    Raises:
        BenchError: it is damaged, of another version, or names a file outside the folder.
    """
    path = root / MANIFEST
    try:
        content = json.loads(small_text(path))
        version, files = content["version"], dict(content["files"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BenchError(
            f"{path} is not a readable manifest; restore it or write it anew"
        ) from None
    if version != VERSION:
        raise BenchError(f"{path} is of version {version}, this one reads {VERSION}")
    for name, digest in files.items():
        if not isinstance(digest, str):
            raise BenchError(f"{path} has no digest of '{name}'")
        if not is_inside(name):
            raise BenchError(f"{path} names '{name}', which is outside its folder")
    return files


def small_text(path: Path) -> str:
    """Return the text of a file of some megabytes at most.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is larger, no regular file, or not UTF-8.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise ValueError(f"no regular file of at most {LARGEST // 2**20} MB")
    return path.read_text(encoding="utf-8")


def is_inside(name: object) -> bool:
    """Tell whether a name from a file is that of a file below the file's own folder."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and not Path(name).drive
