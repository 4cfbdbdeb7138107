"""The logs of a cell: what its fit noted (curves, images, counters), and `log.txt`."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.results.files import atomic_path, canonical_json, write_parquet

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

COLUMNS = ("step", "name", "value")
CAPTION_SIZE = 10
"""Height of a caption's font, pixels."""


class CellLog:
    """The harness's `FitLog`. Tensors are read only when something is written."""

    def __init__(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        self._points: list[tuple[int, str, float | Tensor]] = []
        self._n_read = self._n_given = 0
        self._images: dict[str, tuple[Tensor, tuple[str, ...], int | None]] = {}
        self._progress = progress
        self.counters: dict[str, int] = {}
        self.backends: dict[str, str] = {}
        self.notes: list[str] = []
        self.extras: dict[str, Any] = {}

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Note named scalars of one step; see `bench.contract.FitLog`."""
        for name, value in values.items():
            kept = value.detach().clone() if isinstance(value, Tensor) else float(value)
            self._points.append((step, name, kept))

    def images(
        self, name: str, images: Tensor, captions: Sequence[str] = (), columns: int | None = None
    ) -> None:
        """Note a grid of images; see `bench.contract.FitLog`."""
        pixels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        self._images[name] = (pixels, tuple(captions), columns)

    def count(self, name: str, amount: int) -> None:
        """Add to a counter; see `bench.contract.FitLog`."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def backend(self, part: str, name: str) -> None:
        """Note the backend of a part; see `bench.contract.FitLog`."""
        self.backends[part] = name

    def note(self, text: str) -> None:
        """Keep a sentence, once; see `bench.contract.FitLog`."""
        line = " ".join(text.split())
        if line not in self.notes:
            self.notes.append(line)

    def extra(self, name: str, value: object) -> None:
        """Keep a value of the method's own; see `bench.contract.FitLog`."""
        try:
            self.extras[name] = json.loads(canonical_json(value))
        except (TypeError, ValueError) as error:
            raise BenchError(
                f"extra '{name}' cannot be stored in a record ({error}); give finite numbers, "
                "strings, lists and dictionaries"
            ) from None

    def progress(self, step: int, total: int) -> None:
        """Forward progress to the display."""
        self._progress(step, total)

    def state_dict(self) -> dict[str, Any]:
        """Return everything reported so far, as plain lists and tensors."""
        self._read_points()
        return {
            "points": [list(point) for point in self._points],
            "images": {name: [x, list(c), n] for name, (x, c, n) in self._images.items()},
            "counters": dict(self.counters),
            "backends": dict(self.backends),
            "notes": list(self.notes),
            "extras": dict(self.extras),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what an interrupted fit had reported."""
        self._points = [tuple(point) for point in state["points"]]
        self._n_read = self._n_given = 0
        self._images = {name: (x, tuple(c), n) for name, (x, c, n) in state["images"].items()}
        self.counters = dict(state["counters"])
        self.backends = dict(state.get("backends", {}))
        self.notes = list(state.get("notes", ()))
        self.extras = dict(state.get("extras", {}))

    def curve(self) -> dict[str, np.ndarray]:
        """Return the scalars as columns `step`, `name`, `value`."""
        self._read_points()
        steps, names, values = zip(*self._points, strict=True) if self._points else ((), (), ())
        return {
            "step": np.asarray(steps, dtype=np.int64),
            "name": np.asarray(names, dtype=object),
            "value": np.asarray(values, dtype=np.float64),
        }

    def new_points(self) -> list[tuple[int, str, float]]:
        """Return the points (step, name, value) that were noted since this was last asked."""
        self._read_points()
        start, self._n_given = self._n_given, len(self._points)
        return [(step, name, float(value)) for step, name, value in self._points[start:]]

    def write(self, folder: Path) -> None:
        """Write `curve.parquet` and `images/*.png` into a folder, if there are any."""
        if self._points:
            write_parquet(folder / "curve.parquet", self.curve())
        for name, (pixels, captions, columns) in self._images.items():
            file_name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            with atomic_path(folder / "images" / f"{file_name}.png") as temporary:
                save_grid(temporary, pixels, captions, columns)

    def _read_points(self) -> None:
        """Read the tensors among the points, those of one type at once."""
        places: defaultdict[torch.dtype, list[int]] = defaultdict(list)
        for place in range(self._n_read, len(self._points)):
            value = self._points[place][2]
            if isinstance(value, Tensor):
                places[value.dtype].append(place)
        for chosen in places.values():
            values = torch.stack([torch.as_tensor(self._points[place][2]) for place in chosen])
            for place, value in zip(chosen, values.tolist(), strict=True):
                self._points[place] = (*self._points[place][:2], value)
        self._n_read = len(self._points)


def save_grid(
    path: Path,
    pixels: Tensor,
    captions: Sequence[str],
    columns: int | None = None,
    scale: int = 2,
) -> None:
    """Write uint8 images (N, 3, H, W) as one PNG.

    Captions each stand above a group of N / len(captions) images; without them each image is a
    group of its own. `columns` groups stand in a row; None makes the grid about square.
    """
    from PIL import Image, ImageDraw

    n_images, _, height, width = pixels.shape
    n_groups = len(captions) or n_images
    per_group = n_images // n_groups
    step_x, step_y = width * scale + 2, height * scale + 2
    group_x, group_y = per_group * step_x + 4, step_y + (14 if captions else 0)
    columns = columns or max(1, round((n_groups * group_y / group_x) ** 0.5))
    rows = -(-n_groups // columns)
    canvas = Image.new("RGB", (columns * group_x, rows * group_y), "white")
    draw, font = ImageDraw.Draw(canvas), caption_font()
    for group in range(n_groups):
        top, left = group // columns * group_y, group % columns * group_x
        if captions:
            caption = _shortened(drawable(captions[group], font), group_x - 4, font.getlength)
            draw.text((left + 2, top + 1), caption, fill="black", font=font)
        for index in range(per_group):
            tile = Image.fromarray(
                pixels[group * per_group + index].permute(1, 2, 0).contiguous().numpy()
            )
            tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            canvas.paste(tile, (left + index * step_x + 2, top + group_y - step_y))
    canvas.save(path, format="PNG")


@functools.cache
def caption_font() -> FreeTypeFont:
    """Return the font of captions, which has Latin, Greek, Cyrillic and more."""
    from PIL import ImageFont

    from bench.data.sets.glyphs import font_folder

    return ImageFont.truetype(font_folder() / "DejaVuSans.ttf", CAPTION_SIZE)


def drawable(text: str, font: FreeTypeFont) -> str:
    """Return a text as one line, with `U+65E5` for each letter that a font lacks."""
    absent: Any = font.getmask("\uffff")
    unknown = absent.getbbox(), bytes(absent)

    def shown(letter: str) -> str:
        mask: Any = font.getmask(letter)
        lacks = not letter.isascii() and (mask.getbbox(), bytes(mask)) == unknown
        return f"U+{ord(letter):04X}" if lacks else letter

    return "".join(map(shown, " ".join(text.split())))


def _shortened(text: str, width: int, length: Callable[[str], float]) -> str:
    """Return a text that is at most `width` long, cut near its start: names differ at the end."""
    if length(text) <= width:
        return text
    head, tail = text[:4], text[4:]
    while tail and length(f"{head}..{tail}") > width:
        tail = tail[1:]
    return f"{head}..{tail}"


class _LogFile(logging.FileHandler):
    """A log that raises where it cannot be written, as all other files of a cell do."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            error.filename = error.filename or self.baseFilename
        if error is not None:
            raise error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what it could not flush was raised when written
            super().close()


@contextlib.contextmanager
def log_file(folder: Path) -> Iterator[logging.Logger]:
    """Give the logger of a cell, which writes to `log.txt` in its folder."""
    logger = logging.getLogger(f"purer_bench.{folder.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = _LogFile(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()
        logger.removeHandler(handler)
