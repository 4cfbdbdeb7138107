"""Data sets that this package reads, and their official class splits, as facts beside the code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

SPLITS = ("train", "val", "test")

ClassSplit = Mapping[str, Mapping[str, int | None]]
"""For each split, class name → number of images (None: not known here)."""


def read_split(name: str) -> dict[str, Any]:
    """Return `splits/<name>.json` as it is written."""
    path = resources.files("bench.data.sets").joinpath(f"splits/{name}.json")
    return json.loads(path.read_text("utf-8"))


@cache
def class_split(name: str) -> ClassSplit:
    """Return the classes of each split, sorted, with their numbers of images where they are known.

    Args:
        name: of the file in `splits/`, whose splits are lists of class names or mappings from
            class name to number of images.
    """
    content = read_split(name)
    found = {}
    for split in SPLITS:
        part = content[split]
        counts = part if isinstance(part, dict) else dict.fromkeys(part)
        found[split] = dict(sorted(counts.items()))
    return found
