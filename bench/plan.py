"""Which cells a suite has, what of each is there already, and what the rest will take.

A resolved plan is remembered under the digest of everything it follows from, so that looking at a
finished suite again needs neither torch nor any plug-in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import registry
from bench.cells import Cell, Suite, expand, read_suite, select, suite_file
from bench.data.base import ImageData
from bench.data.sources import check_name, dataset_source
from bench.errors import BenchError
from bench.records import content_hash, file_sha256, write_json


@dataclass(frozen=True)
class Plan:
    """A suite, its cells in order, and the data sets found for them."""

    suite: Suite
    cells: list[Cell]
    data: dict[str, ImageData]
    missing: dict[str, str]
    """why a data set could not be opened, by name"""

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each data set found."""
        return {name: data.digest for name, data in self.data.items()}


def make_plan(
    suite_name: str,
    settings: Sequence[str],
    only: Sequence[str],
    seeds: int | None,
    cache: Path,
    data_dir: Path | None,
    dataset_dirs: Mapping[str, Path],
    progress: Any = None,
) -> Plan:
    """Resolve a suite into cells and open its data.

    Args:
        suite_name: a suite's name or YAML file.
        settings, only, seeds: what the command line says; see `read_suite`, `select`.
        cache: the cache folder.
        data_dir, dataset_dirs: where data sets are looked for.
        progress: called with (label, done, total) while a data set is prepared.

    Raises:
        BenchError: something in the request is wrong. Missing data is not: see `Plan.missing`.
    """
    suite, overrides = read_suite(suite_name, settings)
    for name in dataset_dirs:
        if name not in suite.datasets:
            check_name(name, {})
    cells = select(
        _resolved(suite_name, suite, overrides, settings, seeds, cache, dataset_dirs), only
    )
    data, missing = {}, {}
    for name in sorted({name for cell in cells for name in cell.datasets}):
        try:
            source = dataset_source(name, dataset_dirs)
            data[name] = source.open(cache, data_dir, dataset_dirs.get(name), progress)
        except BenchError as error:
            missing[name] = str(error)
    return Plan(suite, cells, data, missing)


def _resolved(
    suite_name: str,
    suite: Suite,
    overrides: Mapping[str, Mapping[str, Any]],
    settings: Sequence[str],
    seeds: int | None,
    cache: Path,
    dataset_dirs: Mapping[str, Path],
) -> list[Cell]:
    for name in suite.datasets:
        check_name(name, dataset_dirs)
    key = content_hash(
        {
            "suite": file_sha256(suite_file(suite_name)),
            "settings": list(settings),
            "seeds": seeds,
            "code": _code_digest({entry.method for entry in suite.methods}),
        }
    )
    path = cache / "plans" / f"{key[:20]}.json"
    if path.exists():
        try:
            return [Cell.model_validate(cell) for cell in json.loads(path.read_text("utf-8"))]
        except ValueError:
            path.unlink(missing_ok=True)
    cells = expand(suite, overrides, seeds, dataset_dirs)
    try:
        write_json(path, [cell.model_dump(mode="json") for cell in cells])
    except OSError as error:
        raise BenchError(
            f"cache folder '{cache}' is not writable ({error.strerror}); name another with --cache"
        ) from None
    return cells


def _code_digest(methods: set[str]) -> str:
    """Return a digest of the source of all that a cell's configuration follows from.

    That is the harness, and every package that offers one of the methods or any calibration.
    """
    modules = {"bench"} | {registry.entry("method", name).module for name in methods}
    modules |= {registry.entry("calibration", n).module for n in registry.names("calibration")}
    packages = {module.partition(".")[0] for module in modules}
    files: dict[str, str] = {}
    for package in sorted(packages):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                files[f"{package}/{path.relative_to(folder)}"] = file_sha256(path)
    groups = ("purer_bench.methods", "purer_bench.calibrations")
    entries = sorted(f"{p.name}={p.value}" for g in groups for p in entry_points(group=g))
    return content_hash([files, entries])
