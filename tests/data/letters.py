"""Which letters are classes of `glyphs`: chosen by rendering, so that none looks like another.

Two letters are look-alikes where, in any face, their renderings at one size and in about one
place correlate above a threshold: scripts share many forms (Latin A, Greek Alpha, Cyrillic A),
and size alone does not tell c from C.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from bench.data.sets.glyphs import FACES, letter_mask

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


def _shape(ink: Image.Image) -> np.ndarray:
    """Return a letter at one size, 20 of 28 pixels, blurred and standardised, (28, 28)."""
    scale = 20 / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    canvas = Image.new("L", (28, 28))
    small = ink.resize((width, height), Image.Resampling.BOX)
    canvas.paste(small, ((28 - width) // 2, (28 - height) // 2))
    values = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float64)
    values -= values.mean()
    return values / np.linalg.norm(values)
