"""Small data sets and cells that tests share, beside what `bench.testing` has."""

from __future__ import annotations

import dataclasses
import io
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.data.base import ImageData, make_split
from bench.execute.cell import run_cell
from bench.execute.state import RunState
from bench.results.store import StoredRecord, read_record
from bench.stops import Stop, Stopped
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from bench.testing.tiny import (
    MEAN,
    STD,
    RecordingLog,
    tiny_context,
    tiny_net,
    tiny_pool,
    tiny_tasks,
)

__all__ = [
    "MEAN",
    "STD",
    "RecordingLog",
    "Saves",
    "StopAfter",
    "cell_of",
    "few_images",
    "run_toy",
    "tiny_context",
    "tiny_net",
    "tiny_pool",
    "tiny_tasks",
    "toy_data",
    "write_birds",
]


class Saves:
    """A `save` that keeps every state in a file's bytes, and may break off after one of them."""

    def __init__(self, break_after: int | None = None):
        self.states = Stored()
        self.steps: list[int] = []
        self._break_after = break_after

    def __call__(self, step: int, state: dict[str, Any]) -> None:
        """Keep a state."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.states.files.append(buffer)
        self.steps.append(step)
        if len(self.states) == self._break_after:
            raise Stopped(signal.SIGTERM)


class Stored(Sequence[dict[str, Any]]):
    """States, each as read from its file: anew at each look, and not before."""

    def __init__(self) -> None:
        self.files: list[io.BytesIO] = []

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        self.files[index].seek(0)
        return torch.load(self.files[index], weights_only=True)


class StopAfter(Stop):
    """A request to end that comes at the n-th look for one, counted from 1."""

    def __init__(self, looks: int):
        super().__init__()
        self.looks = looks

    @property
    def requested(self) -> bool:
        """Count a look."""
        self.looks -= 1
        if self.looks == 0:
            self.request(signal.SIGTERM)
        return self.signum is not None


SMALL = (
    "budget.teacher_epochs=1",
    "budget.max_teachers=2",
    "budget.meta_iterations=6",
    "budget.validate_every=1",
    "budget.n_val_tasks=4",
    "n_test_tasks=12",
    "n_query=5",
)
"""Settings that leave a second or so of a suite's work."""


def toy_data(size: int = 16, n_train: int = 12) -> ImageData:
    """Coloured noise under the name of a registered data set, so that a cell can name it."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, n_classes in (("train", n_train), ("val", 6), ("test", 6)):
        colours = rng.integers(60, 196, (n_classes, 1, 1, 1, 3))
        noise = rng.integers(-60, 60, (n_classes, 20, size, size, 3))
        pixels = np.clip(colours + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
        names = [f"{name}{i:02d}" for i in range(n_classes)]
        splits[name] = make_split(name, names, [20] * n_classes, pixels)
    return ImageData("glyphs", size, (0.5,) * 3, (0.25,) * 3, splits, "d" * 64, "ours")


def few_images(data: ImageData, n: int = 24) -> ImageData:
    """Return a data set with the first n images of each class: what is trained on it is made soon.

    The digest stays that of the whole.
    """
    splits = {}
    for name, split in data.splits.items():
        pixels = np.concatenate([split.class_images(one)[:n] for one in range(len(split.classes))])
        splits[name] = make_split(name, split.classes, [n] * len(split.classes), pixels)
    return dataclasses.replace(data, splits=splits)


def write_birds(folder: Path, n: int = 20, n_classes: int = 5) -> Path:
    """Write an image folder of noise, three splits of some classes of n images; return it."""
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(n_classes):
            place = folder / split / f"{split}{number}"
            place.mkdir(parents=True)
            for image in range(n):
                pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png")
    return folder


def cell_of(method: str = "purer", *settings: str, k_shot: int = 1) -> Cell:
    """Return the first cell of a method in the suite glyphs, cut down to a second or so."""
    cells = expand(*read_suite("glyphs", ["budget=micro", *SMALL, f"k_shot={k_shot}", *settings]))
    return next(cell for cell in cells if cell.method == method)


def run_toy(cell: Cell, data: ImageData, folder: Path) -> StoredRecord:
    """Run one cell on a data set in this process; pools and fits are kept in the folder."""
    state = RunState(
        "toy", folder / "runs", folder / "cache", torch.device("cpu"), {"glyphs": data}, "bench run"
    )
    return read_record(run_cell(cell, state))
