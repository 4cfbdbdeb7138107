"""What is installed, which devices are there, which data is found and whether it is intact."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.reading.folders import find_one_of
from bench.data.sources import dataset_source, own_names


def data_rows(data_dir: Path | None, dataset_dirs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return each data set's name, where it was found (None: nowhere), and how to get it."""
    rows = []
    for name in [*registry.names("dataset"), *own_names(dataset_dirs)]:
        source = dataset_source(name, dataset_dirs)
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
    """Raise where a place that the user names is not there.

    Raises:
        BenchError: the data folder is no folder, or the path of a data set does not exist.
    """
    for name in sorted({*registry.names("dataset"), *dataset_dirs}):
        find_one_of(name, ("the data sets",), data_dir, dataset_dirs.get(name))


def _n_images(expected: Mapping[str, tuple[int, int | None]]) -> int | None:
    parts = list(expected.values())
    if not parts or any(n_images is None for _, n_images in parts):
        return None
    return sum(n_classes * n_images for n_classes, n_images in parts)


def verify_data(
    name: str,
    cache: Path,
    data_dir: Path | None,
    dataset_dirs: Mapping[str, Path],
    echo: Callable[[str], None],
) -> int:
    """Print what was checked of a data set and return the number of problems."""
    from bench.data.verify import verify

    source = dataset_source(name, dataset_dirs)
    path = source.locate(data_dir, dataset_dirs.get(name))
    echo(f"{name}: {path}")
    findings = verify(source, path, cache)
    for finding in findings:
        echo(f"{'PROBLEM' if finding.level == 'error' else finding.level:<8}{finding.text}")
    return sum(finding.level == "error" for finding in findings)


def diagnose(
    cache: Path, data_dir: Path | None, dataset_dirs: Mapping[str, Path]
) -> dict[str, str]:
    """Return what a user would want to know before asking for help."""
    import torch

    from bench.cores import available_cores
    from bench.execute.machine import cpu_name, describe_environment

    environment = describe_environment()
    found: dict[str, str] = {"python": f"{environment.python} on {environment.platform}"}
    found |= dict(environment.packages)
    found["commit"] = f"{environment.git_commit} {'dirty' if environment.git_dirty else ''}".strip()
    found["cpu"] = cpu_name()
    found["threads"] = f"{torch.get_num_threads()} of {available_cores()} cores"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    found["device chosen"] = "cuda:0" if count else "cpu (no CUDA device found)"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    found["compiler"] = compiler or "none: torch.compile is not used"
    found["dask"] = "installed" if _importable("distributed") else "not installed: extra 'dask'"
    usage = shutil.disk_usage(cache if cache.exists() else Path.cwd())
    found["cache"] = f"{cache} ({usage.free / 2**30:.0f} GiB free)"
    for row in data_rows(data_dir, dataset_dirs):
        found[f"data {row['name']}"] = row["found"] or f"not found; {row['how_to_get']}"
    return found


def _importable(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
