"""Glyphs: look-alikes are out, drawing is repeatable, and the constants are the data's own."""

from __future__ import annotations

import itertools
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from bench.data.digests import DigestMemory
from bench.data.sets import glyphs
from bench.data.sets.glyphs import (
    DRAWING,
    FACES,
    LETTERS,
    Glyphs,
    class_name,
    colour,
    draw_coverage,
    draw_letter,
    font_folder,
)
from bench.errors import BenchError
from bench.seeds import numpy_generator
from tests.data.letters import ACROSS_SPLITS, CANDIDATES, choose

SCRIPTS = {"train": {"LATIN", "GREEK"}, "val": {"CYRILLIC"}, "test": {"GEORGIAN", "ARMENIAN"}}
SAME_FORM = ["AАΑ", "BВΒ", "EЕΕ", "KКΚ", "MМΜ", "HНΗ", "OОΟՕ", "PРΡ", "TТΤ", "XХΧ", "CС", "JЈ"]
SAME_FORM += ["aа", "cсϲ", "eе", "oоοօ", "pрρ", "xх", "iі", "sѕ", "jј", "hհ", "nո", "uս", "gց"]
SIZE_ONLY = ["cC", "oO", "sS", "vV", "wW", "xX", "zZ"]


def test_lists_are_what_the_rule_chooses():
    assert choose(font_folder()) == LETTERS


def test_each_split_has_its_own_scripts_and_enough_classes():
    for split, part in LETTERS.items():
        assert {unicodedata.name(letter).split()[0] for letter in part} == SCRIPTS[split]
        assert not any(unicodedata.decomposition(letter) for letter in part)
        assert len(part) == len(set(part)) >= 14
    assert len(LETTERS["train"]) >= 60


@pytest.mark.parametrize("forms", SAME_FORM + SIZE_ONLY)
def test_letters_of_one_form_are_one_class_at_most(forms):
    every = "".join(LETTERS.values())
    assert sum(letter in every for letter in forms) <= 1


def _bitmap(font, letter: str) -> np.ndarray:
    """Return a letter's clean bitmap from matplotlib's own renderer, cropped to its ink."""
    font.clear()
    font.set_text(letter)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image(), dtype=np.float64)
    rows, columns = ink.any(axis=1).nonzero()[0], ink.any(axis=0).nonzero()[0]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _unit_vector(ink: np.ndarray) -> np.ndarray:
    """Area-average the ink onto 24 x 24 px whatever its size, soften it, centre and scale."""
    side = max(ink.shape)
    square = np.zeros((side, side))
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    square[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    edges = np.linspace(0, side, 25)
    overlap = np.clip(
        np.minimum(edges[1:, None], np.arange(1, side + 1))
        - np.maximum(edges[:-1, None], np.arange(side)),
        0,
        None,
    )
    small = np.pad(overlap @ square @ overlap.T, 1)
    weights = {0: 2, 1: 1, -1: 1}
    soft = sum(
        weights[dy] * weights[dx] * np.roll(small, (dy, dx), axis=(0, 1))
        for dy, dx in itertools.product(weights, weights)
    )
    vector = (soft - soft.mean()).ravel()
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def clean() -> dict[str, dict[str, np.ndarray]]:
    """Clean renderings by face and letter, through none of the code under test."""
    from matplotlib.ft2font import FT2Font

    wanted = set("".join(LETTERS.values())) | set("".join(SAME_FORM[:-6]))
    shapes = {}
    for face in FACES:
        font = FT2Font(str(font_folder() / face))
        font.set_size(48, 72)
        assert all(ord(letter) in font.get_charmap() for letter in wanted)
        shapes[face] = {letter: _unit_vector(_bitmap(font, letter)) for letter in wanted}
    return shapes


@pytest.mark.parametrize("face", FACES)
def test_no_unseen_class_has_a_seen_class_of_its_form(clean, face):
    """The nearest neighbour among clean renderings stays clearly below that of a shared form."""

    def nearest(new: str, seen: str) -> float:
        return max(float(clean[face][new] @ clean[face][old]) for old in seen)

    shared = min(nearest(form[1], form[0]) for form in ("AА", "EЕ", "OО", "PР", "TТ", "CС"))
    assert shared > 0.98
    for split, seen in (
        ("val", LETTERS["train"]),
        ("test", LETTERS["train"] + LETTERS["val"]),
    ):
        assert max(nearest(new, seen) for new in LETTERS[split]) < ACROSS_SPLITS


def test_a_look_alike_would_be_noticed(clean):
    """Without the rule, the same measure does find Cyrillic letters among the Latin ones."""
    face = clean[FACES[0]]
    pairs = [(form[0], form[1]) for form in SAME_FORM[:12] if form[0] != "K"]  # К has other arms
    assert all(float(face[a] @ face[b]) > 0.93 for a, b in pairs)
    assert {pair[0] for pair in pairs} & set(LETTERS["train"])


def test_listing_is_complete_sorted_and_disjoint():
    source = Glyphs()
    with source.contents(source.locate(None)) as listing:
        names = {split: [part.name for part in parts] for split, parts in listing.items()}
        assert all(part.count == 180 for parts in listing.values() for part in parts)
    assert all(part == sorted(part) for part in names.values())
    assert {split: (len(part), 180) for split, part in names.items()} == Glyphs.expected
    assert len(set().union(*names.values())) == sum(map(len, LETTERS.values()))
    assert "latin_small_letter_a" in names["train"]


def test_drawing_is_repeatable_and_leaves_global_state():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = draw_letter("g", font_folder(), 8)
    np.testing.assert_array_equal(draw_letter("g", font_folder(), 8), first, strict=True)
    np.testing.assert_array_equal(draw_letter("g", font_folder(), 5), first[:5])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert first.shape == (8, 32, 32, 3)
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8
    assert not np.array_equal(draw_letter("k", font_folder(), 8), first)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """The first 20 images of every train class, (64, 20, 32, 32, 3)."""
    return np.stack([draw_letter(letter, font_folder(), 20) for letter in LETTERS["train"]])


def test_mean_and_std_are_those_of_the_train_split(sample):
    values = sample.reshape(-1, 3) / 255
    np.testing.assert_allclose(values.mean(axis=0), Glyphs.mean, atol=0.02)
    np.testing.assert_allclose(values.std(axis=0), Glyphs.std, atol=0.02)


def test_ink_is_dark_and_inside_the_paper(sample):
    grey = sample.mean(axis=-1)  # (64, 20, 32, 32)
    edge = np.concatenate([grey[..., 0, :], grey[..., -1, :]], axis=-1).mean(axis=-1)
    darkest = np.sort(grey.reshape(64, 20, -1), axis=-1)[..., :20].mean(axis=-1)
    assert np.all(darkest < edge - 25)


def test_letters_differ_more_than_their_images(sample):
    """Nearest class mean of grey, standardised held-out images: ten times chance (1 in 64)."""
    grey = sample.mean(axis=-1).reshape(64, 20, -1)
    grey = grey - grey.mean(axis=-1, keepdims=True)
    grey /= np.linalg.norm(grey, axis=-1, keepdims=True)
    means = grey[:, :15].mean(axis=1)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    hits = (grey[:, 15:] @ means.T).argmax(axis=-1) == np.arange(64)[:, None]
    assert hits.mean() > 0.15


def test_affine_places_the_letter_where_its_draws_say():
    """A centred bar keeps its area times the scale squared, and its middle within the shift."""
    mask = Image.new("L", (20, 60), 255)
    generator = numpy_generator("test", "bar")
    rows, columns = np.mgrid[:32, :32] + 0.5
    low, high = DRAWING.letter_size
    for _ in range(30):
        coverage = draw_coverage([mask], generator)
        area = float(coverage.sum())
        assert 0.93 * low**2 / 3 < area < 1.07 * high**2 / 3
        for places in (rows, columns):
            middle = float((coverage * places).sum()) / area
            assert abs(middle - 16) < DRAWING.shift + 0.3


def test_every_face_and_only_those_given_are_drawn():
    masks = [Image.new("L", (size, 40), 255) for size in (4, 40)]
    generator = numpy_generator("test", "faces")
    areas = [draw_coverage(masks, generator).sum() for _ in range(40)]
    thin = sum(area < 25**2 * 0.12 for area in areas)
    assert 5 < thin < 35


def test_colour_of_bare_paper_and_of_full_ink():
    coverage = np.stack([np.zeros((32, 32)), np.ones((32, 32))]).repeat(200, axis=0)
    images = colour(coverage, numpy_generator("test", 1), numpy_generator("test", 2))
    levels = images.astype(float).mean(axis=(1, 2))  # (400, 3)
    for part, (low, high) in ((levels[:200], DRAWING.paper), (levels[200:], DRAWING.ink)):
        assert part.min() > low - DRAWING.tint - 2
        assert part.max() < high + DRAWING.tint + 2
        assert abs(part.mean() - (low + high) / 2) < 6
    spread = images[:200].astype(float).std(axis=(1, 2))
    assert np.median(spread) == pytest.approx(DRAWING.noise, rel=0.1)


def test_digest_follows_fonts_letters_and_generator(tmp_path, monkeypatch):
    source, memory = Glyphs(), DigestMemory(tmp_path / "memory")
    folder = tmp_path / "fonts"
    folder.mkdir()
    for face in FACES:
        shutil.copy(font_folder() / face, folder / face)
    base = source.source_digest(font_folder(), memory)
    assert source.source_digest(folder, memory) == base
    with (folder / FACES[3]).open("ab") as file:
        file.write(b"\0")
    other_font = source.source_digest(folder, memory)
    monkeypatch.setattr(glyphs, "GENERATOR_VERSION", 0)
    other_version = source.source_digest(font_folder(), memory)
    monkeypatch.undo()
    monkeypatch.setattr(glyphs, "LETTERS", LETTERS | {"val": "ж"})
    other_letters = source.source_digest(font_folder(), memory)
    assert len({base, other_font, other_version, other_letters}) == 4


def test_missing_font_or_letter_is_named(tmp_path):
    with pytest.raises(BenchError, match=r"font 'DejaVuSans.ttf' is not in"):
        Glyphs().locate(None, explicit=tmp_path)
    for face in FACES:
        shutil.copy(font_folder() / "cmr10.ttf", tmp_path / face)
    with pytest.raises(BenchError, match="has no cyrillic_small_letter_zhe"):
        draw_letter("ж", tmp_path, 1)


def test_candidates_are_letters_considered_once():
    every = "".join(CANDIDATES.values())
    assert len(every) == len(set(every))
    assert all(unicodedata.category(letter).startswith("L") for letter in every)
    assert len({class_name(letter) for letter in every}) == len(every)
