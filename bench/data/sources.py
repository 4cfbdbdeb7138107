"""Data sets by name: registered ones, and the user's own by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench import registry
from bench.data.base import DatasetSource
from bench.errors import BenchError, unknown_name


def dataset_source(name: str, dataset_dirs: Mapping[str, Path]) -> DatasetSource:
    """Return the data set of a name.

    Args:
        name: a registered name, or one that `dataset_dirs` gives a path.
        dataset_dirs: what `--dataset-dir NAME=PATH` says.

    Raises:
        BenchError: nothing carries the name, or a path of the user's holds no data set.
    """
    check_name(name, dataset_dirs)
    if name in registry.offered("dataset"):
        return registry.load("dataset", name)()
    from bench.data.sets.image_folder import ImageFolder

    return ImageFolder(name, dataset_dirs[name])


def check_name(name: str, dataset_dirs: Mapping[str, Path]) -> None:
    """Raise an error for a name that no data set has.

    Raises:
        BenchError: the name is neither registered nor given a path, or is no name.
    """
    if name in registry.offered("dataset"):
        return
    if name not in dataset_dirs:
        error = unknown_name("dataset", name, registry.names("dataset"))
        raise BenchError(f"{error} (your own images: --dataset-dir {name}=PATH)")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BenchError(
            f"data set name '{name}' in --dataset-dir; use small letters, digits and _, as in birds"
        )


def own_names(dataset_dirs: Mapping[str, Path]) -> list[str]:
    """Return the names of the user's own data sets."""
    return sorted(set(dataset_dirs) - set(registry.offered("dataset")))
