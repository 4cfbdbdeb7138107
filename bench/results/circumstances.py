"""Differences between paired cells besides accuracy: configuration, environment, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.results.codebase import changes_named
from bench.results.files import canonical_json
from bench.results.record import Record

WHO = ("method", "preset", "learner", "calibration")
SETUP = ("net", "architectures", "method_config", "calibration_config", "protocol", "budget")
RATES = ("fit_s", "test_tasks_per_s", "train_tasks_per_s", "pseudo_images_per_s")

CHANGED = "code changed since"

Pair = tuple[str, Record, Record]
"""A pair's name, and the records of its cells, a and b."""


def configuration(pairs: Sequence[Pair], methods: bool) -> dict[str, list[str]]:
    """Return the differences between paired cells, as `protocol.bn: a → b`, with their cells."""
    found: dict[str, list[str]] = {}
    for name, first, second in pairs:
        a, b = (_flat(record, methods) for record in (first, second))
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                text = f"{key}: {a.get(key, 'absent')} → {b.get(key, 'absent')}"
                found.setdefault(text, []).append(name)
    return found


def _flat(record: Record, methods: bool) -> dict[str, str]:
    values: dict[str, Any] = {name: getattr(record, name) for name in (*SETUP, *WHO * methods)}
    values["dataset_digests"] = record.dataset_digests
    values["pool"] = record.pool.sha256[:12] if record.pool else "none"
    flat = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {"": value}
        for key, leaf in inner.items():
            flat[f"{name}.{key}".rstrip(".")] = (
                leaf if isinstance(leaf, str) else canonical_json(leaf)
            )
    return flat


def environment(pairs: Sequence[Pair]) -> dict[str, tuple[str, str]]:
    """Return the differences of the environments, all values of a side joined."""
    a = [_surroundings(first) for _, first, _ in pairs]
    b = [_surroundings(second) for _, _, second in pairs]
    keys = sorted(set().union(*a, *b))
    texts = {key: (_values(a, key), _values(b, key)) for key in keys}
    return {
        key: (first, second)
        for key, (first, second) in texts.items()
        if first != second or (key == CHANGED and first not in ("none", "unknown"))
    }


def _values(side: Sequence[dict[str, str]], key: str) -> str:
    return ", ".join(sorted({one.get(key, "absent") for one in side}))


def _surroundings(record: Record) -> dict[str, str]:
    e, device = record.environment, record.device
    commit = (e.git_commit or "unknown")[:10] + (" (dirty)" if e.git_dirty else "")
    return {
        "commit": commit,
        CHANGED: changes_named(record),
        "device": f"{device.type} {device.name}",
        "threads": str(device.threads),
        "python": e.python,
        "platform": e.platform,
        **e.packages,
    }


def speed(pairs: Sequence[Pair]) -> dict[str, tuple[float, int]]:
    """Return the median ratio b / a of each time or rate, and the number of cells.

    Fits that an earlier cell had made do not count, nor do tests with stored embeddings.
    """
    found = {}
    for name in RATES:
        ratios = []
        for _, *both in pairs:
            a, b = (getattr(record.timing, name) for record in both)
            fresh = name == "test_tasks_per_s" or not any(
                record.fit and record.fit.reused for record in both
            )
            kept = any(record.timing.embeddings_reused for record in both)
            if a and b and fresh and not (kept and name == "test_tasks_per_s"):
                ratios.append(b / a)
        if ratios:
            found[name] = (float(np.median(ratios)), len(ratios))
    return found
