"""Small data sets of several image sizes, and cells on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.data.base import ImageData, make_split
from bench.execute.cell import run_cell
from bench.execute.state import RunState
from bench.results.store import StoredRecord, read_record
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite

CPU = torch.device("cpu")
TINY = [
    "budget.teacher_epochs=1",
    "budget.teacher_epochs_of={}",
    "budget.max_teachers=4",
    "budget.meta_iterations=4",
    "budget.validate_every=2",
    "budget.n_val_tasks=4",
    "n_test_tasks=10",
    "n_query=3",
    "k_shot=1",
]


def toy(name: str, size: int, mean: float = 0.5, seed: int = 0) -> ImageData:
    """Coloured noise under the name of a registered data set, so that a cell can name it."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, n_classes in (("train", 10), ("val", 6), ("test", 6)):
        colours = rng.integers(60, 196, (n_classes, 1, 1, 1, 3))
        noise = rng.integers(-60, 60, (n_classes, 8, size, size, 3))
        pixels = np.clip(colours + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
        splits[split] = make_split(
            split, [f"{split}{i}" for i in range(n_classes)], [8] * n_classes, pixels
        )
    digest = f"{len(name)}{size}".ljust(64, "d")
    return ImageData(name, size, (mean,) * 3, (0.25,) * 3, splits, digest, "ours")


SETS = {
    "cifar_fs": toy("cifar_fs", 16),
    "mini_imagenet": toy("mini_imagenet", 24, 0.4, 1),
    "cub": toy("cub", 24, 0.4, 2),
}


def mh_cells(*settings: str) -> list[Cell]:
    return expand(*read_suite("mh", [*TINY, "architectures=[conv4, conv4_pooled]", *settings]))


def run(cell: Cell, folder: Path, sets: dict[str, ImageData] = SETS) -> StoredRecord:
    place = RunState("toy", folder / "runs", folder / "cache", CPU, sets, "bench run mh")
    return read_record(run_cell(cell, place))
