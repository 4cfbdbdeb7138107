"""Which letters are classes of `glyphs`: chosen by rendering, so that none looks like another.

Two letters are look-alikes where, in any face, their renderings at one size and in about one
place correlate above a threshold: scripts share many forms (Latin A, Greek Alpha, Cyrillic A),
and size alone does not tell c from C. The lists below are what `choose` returned for DejaVu
2.37; they are frozen, so that another FreeType cannot move a letter across the threshold, and a
test chooses them again.
"""

from __future__ import annotations

import itertools
import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

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
SHIFT = 2
"""How far one rendering may be moved over another to match it, pixels of 28 along each axis."""
ACROSS_SPLITS = 0.90
WITHIN_SPLIT = 0.93
"""Largest correlation between two letters of different splits, and of one split."""

CANDIDATES = {
    "train": (
        "abcdefghijklmnopqrstuvwxyz"
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "αβγδεζηθικλμξοπρςστυφχψω"
        "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"
        "ßæðøþđħŋœɔɣɥʃʎʁʞ"
    ),
    "val": ("абвгдежзиклмнопрстуфхцчшщъыьэюяАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯђєѕіјљњћџЂЄЅІЈЉЊЋЏ"),
    "test": (
        "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"
        "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ"
        "ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ"
    ),
}
"""The letters considered, first to last; of two look-alikes the earlier one stays. Not among
them: letters with an accent, and Greek nu, which is v but for a curve."""

LETTERS = {
    "train": "abcdefgikmnopqrstvwxyzABDEGJKLMNRTUYαβδεζλξςτφχωΔΘΞΣΦßæþħŋɔɣʃʎʁʞ",
    "val": "жзчъяДЛЩЮђљњЂЋ",
    "test": "აბდვკლოჟრტუფქღყჭჯჰխկշչջվֆԴԶԷԸԹԻԾՀՁՆՇՉՊՋՎՐՔՖ",
}
"""The letters that are classes."""


def class_name(letter: str) -> str:
    """Return the class name of a letter, such as `greek_small_letter_beta`."""
    return unicodedata.name(letter).lower().replace(" ", "_")


def choose(folder: Path) -> dict[str, str]:
    """Return the letters of each split, without look-alikes, in the order considered.

    Args:
        folder: holds the faces.
    """
    letters = "".join(CANDIDATES.values())
    home = [split for split, part in CANDIDATES.items() for _ in part]
    alike = likeness(letters, folder)
    kept: list[int] = []
    for new in range(len(letters)):
        limits = [WITHIN_SPLIT if home[new] == home[old] else ACROSS_SPLITS for old in kept]
        if np.all(alike[new, kept] <= limits):
            kept.append(new)
    return {split: "".join(letters[i] for i in kept if home[i] == split) for split in CANDIDATES}


def likeness(letters: str, folder: Path) -> np.ndarray:
    """Return each pair's largest correlation over the faces and small shifts, (n, n)."""
    n, reach = len(letters), range(-SHIFT, SHIFT + 1)
    largest = np.full((n, n), -1.0)
    for face in FACES:
        shapes = np.stack([_shape(letter_mask(letter, folder / face)) for letter in letters])
        for dy, dx in itertools.product(reach, reach):
            moved = np.roll(shapes, (dy, dx), axis=(1, 2))
            np.maximum(largest, moved.reshape(n, -1) @ shapes.reshape(n, -1).T, out=largest)
    return np.maximum(largest, largest.T)


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


def _shape(ink: Image) -> np.ndarray:
    """Return a letter at one size, 20 of 28 pixels, blurred and standardised, (28, 28)."""
    from PIL import Image, ImageFilter

    scale = 20 / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    canvas = Image.new("L", (28, 28))
    small = ink.resize((width, height), Image.Resampling.BOX)
    canvas.paste(small, ((28 - width) // 2, (28 - height) // 2))
    values = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float64)
    values -= values.mean()
    return values / np.linalg.norm(values)


@cache
def _font(face: Path) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(face), TEXT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@cache
def _missing(face: Path) -> Image:
    """Return the box that the face draws for what it lacks (U+FFFF is no character)."""
    return _render("\uffff", _font(face))
