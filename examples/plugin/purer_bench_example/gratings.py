"""A data set: coloured gratings, drawn when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bench.data.base import ClassImages, DatasetSource, Listing
from bench.data.digests import DigestMemory
from bench.results.files import content_hash
from bench.seeds import numpy_generator

GENERATOR_VERSION = 1
"""Raised when drawing changes pixels."""
IMAGE_SIZE, IMAGES_PER_CLASS = 16, 40
CLASSES = {"train": range(15), "val": range(15, 21), "test": range(21, 27)}
"""Numbers of the classes of each split; 27 = 9 orientations × 3 frequencies."""


class Gratings(DatasetSource):
    """Sinusoidal gratings of nine orientations and three frequencies, in random colours."""

    name = "gratings"
    image_size = IMAGE_SIZE
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    licence = "CC0"
    how_to_get = "it is drawn: reinstall purer-bench-example"
    expected = {split: (len(numbers), IMAGES_PER_CLASS) for split, numbers in CLASSES.items()}

    def find(self, data_dir: Path | None, explicit: Path | None = None) -> Path | None:
        """Return this file: there is no other."""
        return Path(__file__)

    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the digest of all that the pixels follow from."""
        splits = {split: list(numbers) for split, numbers in CLASSES.items()}
        return content_hash([GENERATOR_VERSION, IMAGE_SIZE, IMAGES_PER_CLASS, splits])

    @contextmanager
    def contents(self, path: Path) -> Iterator[Listing]:
        """List the classes, which are drawn when they are read."""
        yield {
            split: [
                ClassImages(f"grating{number:02d}", IMAGES_PER_CLASS, partial(draw, number))
                for number in numbers
            ]
            for split, numbers in CLASSES.items()
        }


def draw(number: int) -> np.ndarray:
    """Return the images of a class, uint8 (40, 16, 16, 3); the same ones at every call."""
    generator = numpy_generator("gratings", GENERATOR_VERSION, number)
    turn = np.pi * (number % 9) / 9 + generator.normal(0, 0.05, (IMAGES_PER_CLASS, 1, 1))
    frequency = 0.6 + 0.45 * (number // 9)
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    phase = generator.uniform(0, 2 * np.pi, (IMAGES_PER_CLASS, 1, 1))
    wave = np.sin(frequency * (np.cos(turn) * x + np.sin(turn) * y) + phase)
    colour = generator.uniform(-1, 1, (IMAGES_PER_CLASS, 1, 1, 3))
    noise = generator.normal(0, 12, (*wave.shape, 3))
    pixels = 128 + 70 * wave[..., None] + 40 * colour + noise
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
