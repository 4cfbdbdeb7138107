"""`bench data`: look at, check and prepare data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.cli.folding import print_columns
from bench.cli.options import (
    cache_option,
    data_option,
    dataset_dir_option,
    json_option,
    pairs,
    preparing,
)
from bench.errors import BenchError


@click.group()
def data() -> None:
    """Look at, check and prepare data sets."""


@data.command("list")
@data_option
@dataset_dir_option
@cache_option
@json_option
def data_list(
    data_dir: Path | None, dataset_dirs: tuple[str, ...], cache: Path, as_json: bool
) -> None:
    """List the data sets, where each was found, and how to get it."""
    check_places(data_dir, pairs(dataset_dirs))
    rows = data_rows(data_dir, pairs(dataset_dirs))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    print_columns({row["name"]: row["found"] or f"not found; {row['how_to_get']}" for row in rows})


@data.command()
@click.argument("name")
@data_option
@dataset_dir_option
@cache_option
def verify(name: str, data_dir: Path | None, dataset_dirs: tuple[str, ...], cache: Path) -> None:
    """Check a data set's classes, counts and digest; exit 1 where something differs."""
    problems = verify_data(name, cache, data_dir, pairs(dataset_dirs), click.echo)
    if problems:
        click.get_current_context().exit(1)


@data.command()
@click.argument("name")
@data_option
@dataset_dir_option
@cache_option
@click.option("--download", is_flag=True, help="Fetch what is missing from the authors' page.")
def prepare(
    name: str, data_dir: Path | None, dataset_dirs: tuple[str, ...], cache: Path, download: bool
) -> None:
    """Decode a data set into the cache, once; goes on where it was interrupted."""
    from bench.data.sources import dataset_source, open_data

    source = dataset_source(name, pairs(dataset_dirs))
    if download:
        from bench.data.download import fetch_missing

        if data_dir is None:
            raise BenchError("--download needs a folder to download into; name it with --data DIR")
        for path in fetch_missing(source, data_dir, preparing(False)):
            click.echo(f"downloaded {path}")
    prepared = open_data(source, cache, data_dir, pairs(dataset_dirs).get(name), preparing(False))
    counts = {split: int(part.counts.sum()) for split, part in prepared.splits.items()}
    click.echo(f"{name}: {counts} images, digest {prepared.digest[:16]}, in {cache / 'data'}")


def data_rows(data_dir: Path | None, dataset_dirs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return each data set's name, where it was found (None: nowhere), and how to get it."""
    from bench.data.sources import dataset_source, own_names

    rows = []
    for name in [*registry.names("dataset"), *own_names(dataset_dirs)]:
        source = dataset_source(name, dataset_dirs)
        found: Path | Exception | None
        try:
            found = source.find(data_dir, dataset_dirs.get(name))
        except Exception as error:
            found = error
        rows.append(
            {
                "name": name,
                "found": str(found) if found is not None else None,
                "image_size": source.image_size,
                "mean": list(source.mean),
                "std": list(source.std),
                "classes": {split: n for split, (n, _) in source.expected.items()},
                "images": source.n_images or _n_images(source.expected),
                "digests": sorted(source.known_digests),
                "published": {d.file: d.digest for d in source.downloads},
                "licence": source.licence,
                "how_to_get": source.how_to_get,
            }
        )
    return rows


def check_places(data_dir: Path | None, dataset_dirs: Mapping[str, Path]) -> None:
    """Raise an error if a path that the user names does not exist.

    Raises:
        BenchError: the data folder is no folder, or the path of a data set does not exist.
    """
    from bench.data.base import find_one_of

    for name in sorted({*registry.names("dataset"), *dataset_dirs}):
        find_one_of(name, ("the data sets",), data_dir, dataset_dirs.get(name))


def _n_images(expected: Mapping[str, tuple[int, int | None]]) -> int | None:
    counts = [n_classes * n for n_classes, n in expected.values() if n is not None]
    return sum(counts) if counts and len(counts) == len(expected) else None


def verify_data(
    name: str,
    cache: Path,
    data_dir: Path | None,
    dataset_dirs: Mapping[str, Path],
    echo: Callable[[str], None],
) -> int:
    """Print what was checked of a data set and return the number of problems."""
    from bench.data.sources import dataset_source
    from bench.data.verify import verify

    source = dataset_source(name, dataset_dirs)
    path = source.locate(data_dir, dataset_dirs.get(name))
    echo(f"{name}: {path}")
    findings = verify(source, path, cache)
    for finding in findings:
        echo(f"{'PROBLEM' if finding.level == 'error' else finding.level:<8}{finding.text}")
    return sum(finding.level == "error" for finding in findings)
