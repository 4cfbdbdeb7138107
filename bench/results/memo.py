"""Cache of resampled numbers beside the report, so that a second report is fast."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.results.files import content_hash, recall, remember

VERSION = 3
"""Raised when a change of the statistics makes kept numbers stale."""


class Memo:
    """Cached lists of floats by the digest of their inputs; on disk only if a path is given."""

    def __init__(self, path: Path | None = None) -> None:
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
        """Return what `compute` returns, from the cache if it was computed before.

        Args:
            name: of the statistic.
            arrays: everything it is computed from, beside the words.
            compute: called where nothing is known.
            words: seeds and settings of the computation.
        """
        return self.many(name, [arrays], lambda _: [compute()], *words)[0]

    def many(
        self,
        name: str,
        items: Sequence[Sequence[np.ndarray]],
        compute: Callable[[list[int]], Sequence[Sequence[float]]],
        *words: str | int,
    ) -> list[list[float]]:
        """Return the numbers of several items, as `numbers` for each.

        Args:
            name: of the statistic.
            items: the arrays of each.
            compute: places of unknown items → their numbers; not called where all are known.
            words: seeds and settings of the computation.
        """
        keys = [_key(name, arrays, words) for arrays in items]
        self._used |= {key: self._known[key] for key in keys if key in self._known}
        unknown = [place for place, key in enumerate(keys) if key not in self._used]
        if unknown:
            for place, values in zip(unknown, compute(unknown), strict=True):
                self._used[keys[place]] = [float(value) for value in values]
        return [self._used[key] for key in keys]

    def save(self) -> None:
        """Write the entries used in this report and drop the others."""
        if self._path is not None and self._used != self._known:
            remember(self._path, {"version": VERSION, "numbers": self._used})


def _key(name: str, arrays: Sequence[np.ndarray], words: Sequence[str | int]) -> str:
    digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
    return content_hash([VERSION, name, digests, list(words)])[:24]


def _read(path: Path | None) -> dict[str, list[float]]:
    content = recall(path) if path else {}  # a lost or damaged file costs time, no numbers
    return content["numbers"] if content.get("version") == VERSION else {}
