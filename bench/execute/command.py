"""The command that runs the same cells again, for records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.data.sources import own_names


def run_command(
    suite: str, settings: Sequence[str], seeds: int | None, dataset_dirs: Mapping[str, Path]
) -> str:
    """Return `bench run …` without folders and device, which belong to one machine."""
    words = ["bench", "run", suite]
    for setting in settings:
        words += ["--set", setting]
    if seeds:
        words += ["--seeds", str(seeds)]
    for name in own_names(dataset_dirs):
        words += ["--dataset-dir", f"{name}=PATH"]
    return shlex.join(words)
