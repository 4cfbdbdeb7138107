"""Digests of files and folders, remembered so that files are not read again at each start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.results.files import file_sha256, recall, remember, stamp


class DigestMemory:
    """Content digests by path, kept in `<cache>/digests.json`.

    A remembered digest holds as long as size and modification time do; where the file of the
    memory is missing or damaged everything is read again.
    """

    def __init__(self, cache: Path) -> None:
        self.store = cache / "digests.json"

    def file(self, path: Path) -> str:
        """Return the SHA-256 (hex) of a file's bytes."""
        return self._recall(path, stamp(path), lambda: file_sha256(path))

    def folder(self, path: Path, members: Sequence[str]) -> str:
        """Return the SHA-256 (hex) over the members' relative paths and contents.

        Args:
            path: the folder.
            members: relative paths with '/', of the files that count; their order does not.
        """
        ordered = sorted(members)
        stamps = _digest([name, stamp(path / name)] for name in ordered)
        return self._recall(
            path, stamps, lambda: _digest([name, file_sha256(path / name)] for name in ordered)
        )

    def _recall(self, path: Path, stamps: str, read: Callable[[], str]) -> str:
        key = str(path.resolve()).encode("utf-8", "backslashreplace").decode()
        known = recall(self.store).get(key)
        if known is not None and known["stamp"] == stamps:
            return known["sha256"]
        digest = read()
        remember(self.store, recall(self.store) | {key: {"stamp": stamps, "sha256": digest}})
        return digest


def _digest(rows: Iterable[Sequence[str]]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
