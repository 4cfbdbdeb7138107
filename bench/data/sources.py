"""Data sets by name, registered or the user's own by path; decoded once, then memory-mapped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench import registry
from bench.data import cache as decoded
from bench.data.base import DatasetSource, ImageData, Progress, make_split
from bench.data.images import check_normalisation
from bench.errors import BenchError, unknown_name
from bench.results.files import content_hash


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


def open_data(
    source: DatasetSource,
    cache: Path,
    data_dir: Path | None = None,
    explicit: Path | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Return the data set, memory-mapped; decodes it into the cache the first time.

    What is damaged in the cache is decoded again.

    Args:
        source: the data set.
        cache: the cache folder; the data goes to `<cache>/data/<name>-<digest>/`, where the name
            ends in the digest of a sample if the set is drawn by code.
        data_dir: as in `DatasetSource.find`.
        explicit: as in `DatasetSource.find`.
        progress: told about decoding; not called where the cache holds the data.

    Raises:
        BenchError: the data set is missing, incomplete or damaged.
    """
    check_normalisation(source.name, source.mean, source.std)
    path = source.locate(data_dir, explicit)
    digest = source.digest(cache, path)
    sample = source.sample_digest(path)
    folder = cache / "data" / "-".join(filter(None, (source.name, digest[:16], sample[:8])))
    if decoded.problem(folder) is not None:
        decoded.build(source, path, folder, digest, progress)
    if otherwise := decoded.read_otherwise(folder):
        digest = content_hash([digest, otherwise])
    splits = {name: make_split(name, *parts) for name, parts in decoded.load(folder).items()}
    return ImageData(
        source.name, source.image_size, source.mean, source.std, splits, digest, source.licence
    )
