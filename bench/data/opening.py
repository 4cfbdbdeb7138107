"""Opening a data set: decoded into the cache once, then memory-mapped."""

from __future__ import annotations

from pathlib import Path

from bench.data import cache as decoded
from bench.data.base import DatasetSource, ImageData, Progress, make_split
from bench.data.reading.images import check_normalisation
from bench.results.files import content_hash


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
