"""Resampled numbers, kept beside the report: the second report of the same records is quick."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.records import content_hash, write_text

VERSION = 2
"""Raised when a change of the statistics makes kept numbers stale."""


class Memo:
    """Lists of floats by what they were computed from; without a path nothing is kept on disk."""

    def __init__(self, path: Path | None = None):
        self._path = path
        self._known: dict[str, list[float]] = _read(path)
        self._used: dict[str, list[float]] = {}

    def numbers(
        self,
        name: str,
        arrays: Sequence[np.ndarray],
        compute: Callable[[], Sequence[float]],
        *words: str | int,
    ) -> list[float]:
        """Return what `compute` returns, from memory where the same was computed before.

        Args:
            name: of the statistic.
            arrays: everything it is computed from, beside the words.
            compute: called where nothing is known.
            words: seeds and settings of the computation.
        """
        digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
        key = content_hash([VERSION, name, digests, list(words)])[:24]
        if key not in self._used:
            known = self._known.get(key)
            self._used[key] = [float(v) for v in compute()] if known is None else known
        return self._used[key]

    def save(self) -> None:
        """Write what was used in this report; what it no longer needs is dropped."""
        if self._path is not None and self._used != self._known:
            write_text(self._path, json.dumps({"version": VERSION, "numbers": self._used}))


def _read(path: Path | None) -> dict[str, list[float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path else {}
        return content["numbers"] if content.get("version") == VERSION else {}
    except (OSError, ValueError, AttributeError, KeyError):
        return {}  # a lost or foreign file costs time, no numbers
