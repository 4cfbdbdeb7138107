"""Glyphs: letters drawn from the font files that matplotlib ships; nothing to download.

Latin and Greek letters for meta-train, Cyrillic for val, Georgian and Armenian for test. Each
image shows one letter in dark ink on light paper, in a random face, size, rotation, shear and
place, with a tint and noise. The same digest means the same fonts, generator and letters.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.contract import Config
from bench.data.base import ClassImages, DatasetSource, Listing, find_one_of
from bench.data.digests import DigestMemory
from bench.errors import BenchError
from bench.results.files import content_hash
from bench.seeds import numpy_generator

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

GENERATOR_VERSION = 1
"""Counts the changes to drawing that alter pixels."""
IMAGES_A_CLASS = 180
IMAGE_SIZE = 32
FACES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
)
TEXT_SIZE = 64
"""Font size in pixels of the renderings that all images are drawn from."""
LETTERS = {
    "train": "abcdefgikmnopqrstvwxyzABDEGJKLMNRTUYαβδεζλξςτφχωΔΘΞΣΦßæþħŋɔɣʃʎʁʞ",
    "val": "жзчъяДЛЩЮђљњЂЋ",
    "test": "აბდვკლოჟრტუფქღყჭჯჰխկշչջվֆԴԶԷԸԹԻԾՀՁՆՇՉՊՋՎՐՔՖ",
}
"""The letters that are classes: a test chooses them again, by a rule that leaves out look-alikes.

They are frozen, so that another FreeType cannot move a letter across the rule's thresholds.
"""


class Drawing(Config):
    """How far images of one letter differ; each is drawn uniformly unless it says otherwise."""

    letter_size: tuple[float, float] = (15.0, 25.0)
    """Longer side of the letter before rotation and shear, pixels."""
    rotation: float = 12.0
    """Largest turn either way, degrees."""
    shear: float = 0.2
    """Largest horizontal shear either way, pixels a pixel of height."""
    shift: float = 3.0
    """Largest distance from the middle along each axis, pixels."""
    paper: tuple[float, float] = (170.0, 250.0)
    """Brightness of the paper, levels of 255."""
    ink: tuple[float, float] = (10.0, 100.0)
    """Brightness of the ink, levels of 255."""
    tint: float = 25.0
    """Largest departure of a colour channel from the brightness either way, levels."""
    noise: float = 10.0
    """Standard deviation of normal noise on each pixel and channel, levels."""


DRAWING = Drawing()


class Glyphs(DatasetSource):
    """Letters of five scripts in twelve faces, 180 images of each."""

    name = "glyphs"
    image_size = IMAGE_SIZE
    mean = (0.7475, 0.7475, 0.7475)
    std = (0.2116, 0.2116, 0.2116)
    licence = "DejaVu fonts licence (permissive, after Bitstream Vera)"
    how_to_get = "it is drawn from matplotlib's fonts: reinstall matplotlib"
    expected = {split: (len(part), IMAGES_A_CLASS) for split, part in LETTERS.items()}

    def find(self, data_dir: Path | None, explicit: Path | None = None) -> Path | None:
        """Return the folder of the font files, matplotlib's unless another is named."""
        folder = find_one_of(self.name, (), None, explicit) or font_folder()
        missing = [face for face in FACES if not (folder / face).is_file()]
        if missing:
            raise BenchError(
                f"font '{missing[0]}' is not in '{folder}'; glyphs needs the {len(FACES)} DejaVu "
                "faces that matplotlib ships: reinstall matplotlib"
            )
        return folder

    def source_digest(self, path: Path, memory: DigestMemory) -> str:
        """Return the digest of the fonts, the generator's constants and the letters."""
        fonts = memory.folder(path, FACES)
        constants = [GENERATOR_VERSION, IMAGES_A_CLASS, IMAGE_SIZE, TEXT_SIZE, DRAWING.model_dump()]
        return content_hash([fonts, constants, LETTERS])

    def sample_digest(self, path: Path) -> str:
        """Return the digest of one drawn image; see `DatasetSource.sample_digest`."""
        letter = LETTERS["train"][0]
        return hashlib.sha256(draw_letter(letter, path, 1).tobytes()).hexdigest()

    @contextmanager
    def contents(self, path: Path) -> Iterator[Listing]:
        """List the letters, which are drawn when they are read."""
        yield {
            split: [
                ClassImages(name, IMAGES_A_CLASS, partial(draw_letter, letter, path))
                for name, letter in sorted((class_name(letter), letter) for letter in letters)
            ]
            for split, letters in LETTERS.items()
        }


def draw_letter(letter: str, folder: Path, n: int = IMAGES_A_CLASS) -> np.ndarray:
    """Return n images of a letter, uint8 (n, 32, 32, 3); the same ones at every call.

    Args:
        letter: one character.
        folder: holds the faces.
        n: the number of images; fewer are the beginning of more.

    Raises:
        BenchError: a face lacks the letter.
    """
    masks = [letter_mask(letter, folder / face) for face in FACES]
    generators = [
        numpy_generator("glyphs", GENERATOR_VERSION, part, letter)
        for part in ("shape", "colour", "noise")
    ]
    coverage = np.stack([draw_coverage(masks, generators[0]) for _ in range(n)])
    return colour(coverage, generators[1], generators[2])


def draw_coverage(masks: list[Image], generator: np.random.Generator) -> np.ndarray:
    """Return how much of each pixel one random shape of a letter covers, float32 (32, 32).

    Args:
        masks: the letter's ink in each face; one of them is taken, sized, sheared, turned, moved.
        generator: drawn from.
    """
    from PIL import Image

    mask = masks[generator.integers(len(masks))]
    u = generator.uniform(-1, 1, 4)
    low, high = np.log(DRAWING.letter_size)
    scale = math.exp(generator.uniform(low, high)) / max(mask.size)
    turn, shear = math.radians(DRAWING.rotation * u[0]), DRAWING.shear * u[1]
    forward = (
        2
        * scale
        * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        @ np.array([[1, shear], [0, 1]])
    )
    back = np.linalg.inv(forward)  # from the doubled image to the mask, as Pillow wants it
    centre = IMAGE_SIZE + 2 * DRAWING.shift * u[2:]
    offset = np.array(mask.size) / 2 - back @ centre
    drawn = mask.transform(
        (2 * IMAGE_SIZE, 2 * IMAGE_SIZE),
        Image.Transform.AFFINE,
        (*back[0], offset[0], *back[1], offset[1]),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(drawn.reduce(2), dtype=np.float32) / 255


def colour(
    coverage: np.ndarray, colours: np.random.Generator, noise: np.random.Generator
) -> np.ndarray:
    """Return images of ink on paper, uint8 (n, H, W, 3).

    Args:
        coverage: (n, H, W) in [0, 1], the part of each pixel under ink.
        colours: drawn from for brightness and tint, once an image.
        noise: drawn from for every pixel and channel.
    """
    n = len(coverage)
    draws = colours.random((n, 2, 4), dtype=np.float32)
    levels = np.array([DRAWING.paper, DRAWING.ink], dtype=np.float32)
    brightness = levels[:, :1] + (levels[:, 1:] - levels[:, :1]) * draws[:, :, :1]
    tinted = brightness + DRAWING.tint * (2 * draws[:, :, 1:] - 1)  # (n, paper and ink, RGB)
    paper, ink = tinted[:, 0, None, None, :], tinted[:, 1, None, None, :]
    images = paper + (ink - paper) * coverage[..., None]
    images += DRAWING.noise * noise.standard_normal(images.shape, dtype=np.float32)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def class_name(letter: str) -> str:
    """Return the class name of a letter, such as `greek_small_letter_beta`."""
    return unicodedata.name(letter).lower().replace(" ", "_")


def letter_mask(letter: str, face: Path) -> Image:
    """Return a letter's ink, cropped: a grey image, 255 where the letter covers the pixel.

    Raises:
        BenchError: the face has no such letter.
    """
    font = _font(face)
    ink = _render(letter, font)
    if ink.tobytes() == _missing(face).tobytes():
        raise BenchError(
            f"font '{face}' has no {class_name(letter)}; use the DejaVu faces that matplotlib ships"
        )
    return ink


def font_folder() -> Path:
    """Return the folder of matplotlib's font files; does not import matplotlib where it can."""
    spec = find_spec("matplotlib")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place, "mpl-data", "fonts", "ttf")
        if (folder / FACES[0]).is_file():
            return folder
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf")


def _render(text: str, font: FreeTypeFont) -> Image:
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    return image


@cache
def _font(face: Path) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(face), TEXT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@cache
def _missing(face: Path) -> Image:
    """Return the box that the face draws for what it lacks (U+FFFF is no character)."""
    return _render("\uffff", _font(face))
