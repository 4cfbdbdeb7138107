"""Digests of files and folders, remembered so that files are not read again at each start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.results.files import file_sha256, remember_json


class DigestMemory:
    """Content digests by path, kept in `<cache>/digests.json`.

    A remembered digest holds as long as size and modification time do; where the file of the
    memory is missing or unreadable everything is read again.
    """

    def __init__(self, cache: Path) -> None:
        self.store = cache / "digests.json"

    def file(self, path: Path) -> str:
        """Return the SHA-256 (hex) of a file's bytes."""
        return self._recall(path, _stamp(path), lambda: file_sha256(path))

    def folder(self, path: Path, members: Sequence[str]) -> str:
        """Return the SHA-256 (hex) over the members' relative paths and contents.

        Args:
            path: the folder.
            members: relative paths with '/', of the files that count; their order does not.
        """
        ordered = sorted(members)
        stamp = _digest([name, _stamp(path / name)] for name in ordered)
        return self._recall(
            path, stamp, lambda: _digest([name, file_sha256(path / name)] for name in ordered)
        )

    def _recall(self, path: Path, stamp: str, read: Callable[[], str]) -> str:
        key = str(path.resolve())
        known = self._load().get(key)
        if isinstance(known, dict) and known.get("stamp") == stamp:
            return known["sha256"]
        digest = read()
        remember_json(self.store, self._load() | {key: {"stamp": stamp, "sha256": digest}})
        return digest

    def _load(self) -> dict[str, Any]:
        try:
            value = json.loads(self.store.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(rows: Iterable[Sequence[str]]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
