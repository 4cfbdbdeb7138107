"""Plans: the cells of a suite, and the data sets found for them.

A resolved plan is remembered under the digest of everything it follows from, so that looking at a
finished suite again needs neither torch nor any plug-in.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import registry
from bench.checkpoints import INTERVAL
from bench.data.base import ImageData, Progress, nominal_data
from bench.data.sources import check_name, dataset_source, open_data, own_names
from bench.errors import BenchError, unknown_name
from bench.results.codebase import sources_digest
from bench.results.files import content_hash, file_sha256, recall, remember
from bench.suites.cell import (
    Cell,
    PoolChoice,
    known_identities,
    remember_identities,
    select,
    selected,
)
from bench.suites.expand import expand, told_apart
from bench.suites.files import suite_file
from bench.suites.suite import Suite, read_suite, suite_datasets, suite_methods


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite, its cells in order, and the data sets found for them."""

    suite: Suite
    cells: list[Cell]
    data: dict[str, ImageData]
    missing: dict[str, str]
    """why a data set could not be opened, by name"""
    nominal: dict[str, ImageData]
    """of data sets that are missing, what their published counts say, for estimates"""

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each data set found."""
        return {name: data.digest for name, data in self.data.items()}


@dataclass(frozen=True)
class Request:
    """Where and how a plan is run, as plain values that travel to other processes."""

    runs: Path
    cache: Path
    data_dir: Path | None
    dataset_dirs: dict[str, Path]
    device: str | None
    threads: int
    """CPU threads of each process that computes"""
    command: str
    trust_stored: bool = False
    """take teachers, fits and cells that other code or another number of threads made"""
    checkpoint_every: float = INTERVAL
    """least seconds between two checkpoints"""
    time_limit: float | None = None
    """seconds after which a cell ends at its next step; None is none"""
    worker_timeout: float = 300.0
    """seconds without a Dask worker after which a run ends"""
    jobs: int | None = None
    """processes of this machine; None takes as many as cores and memory allow"""

    def resolved(self) -> Request:
        """Return the same request, its paths such that they mean the same in any working folder."""
        return replace(
            self,
            runs=self.runs.resolve(),
            cache=self.cache.resolve(),
            data_dir=self.data_dir and self.data_dir.resolve(),
            dataset_dirs={name: path.resolve() for name, path in self.dataset_dirs.items()},
        )


def make_plan(
    suite_name: str,
    settings: Sequence[str],
    only: Sequence[str],
    seeds: int | None,
    cache: Path,
    data_dir: Path | None,
    dataset_dirs: Mapping[str, Path],
    progress: Progress | None = None,
) -> ResolvedSuite:
    """Resolve a suite into cells and open its data.

    Args:
        suite_name: a suite's name or YAML file.
        settings: what the command line sets; see `read_suite`.
        only: the cells that it keeps; see `select`.
        seeds: its repetitions; None takes the suite's.
        cache: the cache folder.
        data_dir: where data sets are looked for.
        dataset_dirs: where single ones are.
        progress: called with (label, done, total) while a data set is prepared.

    Raises:
        BenchError: something in the request is wrong. Missing data is none of it: it is in
            `ResolvedSuite.missing`.
    """
    suite, overrides = read_suite(suite_name, settings)
    if not suite_datasets(suite):
        if not dataset_dirs:
            raise BenchError(
                f"suite '{suite.name}' names no data set; name yours with --dataset-dir NAME=PATH"
            )
        suite = suite.model_copy(update={"datasets": sorted(dataset_dirs)})
    for name in dataset_dirs:
        if name not in suite_datasets(suite) and name not in registry.names("dataset"):
            raise _unused(name, suite)
    methods = selected(only, "method")
    for name in sorted(methods - suite_methods(suite)):
        raise unknown_name("method in this suite", name, suite_methods(suite))
    methods = methods or suite_methods(suite)
    cells = _resolved(suite_name, suite, overrides, settings, seeds, cache, dataset_dirs, methods)
    cells = select(told_apart(cells), only)
    cells = [_with_pool(cell, suite.pool, cache) for cell in cells]
    data, missing, nominal = {}, {}, {}
    for name in sorted({name for cell in cells for name in cell.datasets}):
        try:
            source = dataset_source(name, dataset_dirs)
            data[name] = open_data(source, cache, data_dir, dataset_dirs.get(name), progress)
        except BenchError as error:
            missing[name] = str(error)
            if name in registry.names("dataset"):
                nominal[name] = nominal_data(registry.load("dataset", name)())
    return ResolvedSuite(suite, cells, data, missing, nominal)


def _unused(name: str, suite: Suite) -> BenchError:
    """Return the error for images of the user's that a suite does not name."""
    near = difflib.get_close_matches(name, registry.names("dataset"), n=1)
    return BenchError(
        f"suite '{suite.name}' does not use data set '{name}' of --dataset-dir; add --set "
        f"datasets={name}, or run suite own" + (f" (did you mean {near[0]}?)" if near else "")
    )


def _with_pool(cell: Cell, name: str | None, cache: Path) -> Cell:
    """Return the cell with an imported pool in place of a trained one.

    The scenario and the architectures are then the pool's.
    """
    if name is None:
        return cell
    if cell.protocol.teachers != "trained":
        raise BenchError(
            f"teachers = {cell.protocol.teachers} is for pools that a run makes, and those of pool "
            f"'{name}' are as they were imported; leave one of the two out"
        )
    from bench.teachers.cards import cached_index, pool_cards

    cards = pool_cards(cache, name)
    architectures = tuple(dict.fromkeys(card.architecture for card in cards))
    several = len({card.dataset for card in cards}) > 1
    return cell.model_copy(
        update={
            "pool": PoolChoice(name=name, sha256=cached_index(cache, name).sha256),
            "architectures": architectures,
            "scenario": "MH" if several else "SS" if len(architectures) == 1 else "SH",
        }
    )


def _resolved(
    suite_name: str,
    suite: Suite,
    overrides: Mapping[str, Mapping[str, Any]],
    settings: Sequence[str],
    seeds: int | None,
    cache: Path,
    dataset_dirs: Mapping[str, Path],
    methods: set[str],
) -> list[Cell]:
    """Return the cells of some methods of a suite, remembered from an earlier call or expanded."""
    for name in suite_datasets(suite):
        check_name(name, dataset_dirs)
    key = content_hash(
        {
            "suite": [file_sha256(suite_file(one)) for one in (suite_name, *suite.parts)],
            "settings": list(settings),
            "datasets": suite_datasets(suite),
            "seeds": seeds,
            "methods": sorted(methods),
            "code": sources_digest(),
        }
    )
    path = cache / "plans" / f"{key[:20]}.json"
    if stored := recall(path):
        remember_identities(stored["identities"])
        return [Cell.model_validate(cell) for cell in stored["cells"]]
    cells = expand(suite, overrides, seeds, dataset_dirs, methods)
    for cell in cells:
        cell.identity()
    kept = [cell.model_dump(mode="json") for cell in cells]
    remember(path, {"cells": kept, "identities": known_identities()})
    return cells


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
