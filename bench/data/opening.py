"""Opening a data set: decoded into the cache once, then memory-mapped."""

from __future__ import annotations

from pathlib import Path

from bench.data import cache as decoded
from bench.data.base import DatasetSource, ImageData, Progress, make_split


def open_data(
    source: DatasetSource,
    cache: Path,
    data_dir: Path | None = None,
    explicit: Path | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Return the data set, memory-mapped; decodes it into the cache the first time.

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
    path = source.locate(data_dir, explicit)
    digest = source.digest(cache, path)
    sample = source.sample_digest(path)
    folder = cache / "data" / "-".join(filter(None, (source.name, digest[:16], sample[:8])))
    if not decoded.is_complete(folder):
        decoded.build(source, path, folder, digest, progress)
    splits = {name: make_split(name, *parts) for name, parts in decoded.load(folder).items()}
    return ImageData(
        source.name, source.image_size, source.mean, source.std, splits, digest, source.licence
    )
