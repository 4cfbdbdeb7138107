"""Data sets and pools by name, or by where they are."""

from __future__ import annotations

from pathlib import Path

from bench.api.process import Folder, cache_folder
from bench.contract import Pool
from bench.data.base import ImageData, Progress
from bench.data.sources import dataset_source, open_data
from bench.paths import default_data_dir, user_path
from bench.teachers.cards import POOL
from bench.teachers.transfer import load_pool as imported_pool
from bench.teachers.transfer import read_pool


def load_data(
    name: str,
    path: Folder = None,
    *,
    data_dir: Folder = None,
    cache: Folder = None,
    progress: Progress | None = None,
) -> ImageData:
    """Return a data set with its three splits of images, uint8 (N, H, W, 3), memory-mapped.

    It is decoded into the cache the first time; `glyphs` is drawn and needs no file.

    Args:
        name: a registered data set (`bench list datasets`), or a name of your own for `path`.
        path: where this data set is, as `--dataset-dir NAME=PATH`: its archive or folder, or your
            own images in folders `train/`, `val/`, `test/` with a folder per class.
        data_dir: the folder of all data sets; None takes `$PURER_BENCH_DATA`.
        cache: the cache folder; None takes the one that commands take.
        progress: called with (images done, images in all, name) while it is decoded.

    Raises:
        BenchError: the name is unknown, or the data set is missing, incomplete or damaged.
    """
    explicit = None if path is None else user_path(path)
    source = dataset_source(name, {} if explicit is None else {name: explicit})
    folder = default_data_dir() if data_dir is None else user_path(data_dir)
    return open_data(source, cache_folder(cache), folder, explicit, progress)


def load_pool(source: str | Path, *, cache: Folder = None) -> Pool:
    """Return an imported pool by its name, or an exported one by its folder.

    Its networks are on the CPU; `bench.fit` computes on copies where it needs others.

    Args:
        source: the name that `bench teachers import` gave it, or a folder that
            `bench teachers export` wrote.
        cache: the cache folder that imported pools are kept in; None takes the commands'.

    Raises:
        BenchError: there is no such pool, or a file of it was changed.
    """
    folder = user_path(source)
    if (folder / POOL).is_file() or isinstance(source, Path):
        return read_pool(folder)
    return imported_pool(cache_folder(cache), source)
