"""Folders as people have them: read as meant, or refused with the one line that says why."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.base import ImageData
from bench.data.reading.decoding import ORIENTATION
from bench.data.reading.tree import open_tree
from bench.data.sets.image_folder import ImageFolder
from bench.data.sets.mini_imagenet import arrange_by_csv
from bench.data.sources import open_data
from bench.data.verify import verify
from bench.errors import BenchError

COMPOSED, APART = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


def picture(index: int, number: int) -> Image.Image:
    """Return an image that no other class or number has, other upside down and sideways."""
    values = np.random.default_rng([index, number]).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((20, 24), Image.Resampling.NEAREST)


def folder_of(path: Path, names: list[str] | None = None) -> Path:
    """Write six or more classes of two images each."""
    for index, name in enumerate(names or [f"c{i}" for i in range(8)]):
        (path / name).mkdir(parents=True)
        for number in range(2):
            picture(index, number).save(path / name / f"{number}.png")
    return path


def opened(path: Path, cache: Path) -> ImageData:
    return open_data(ImageFolder("birds", path), cache, explicit=path)


def images_of(data: ImageData, name: str) -> np.ndarray:
    split = next(one for one in data.splits.values() if name in one.classes)
    return split.class_images(split.classes.index(name))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(BenchError) as caught:
        opened(path, path.parent / "cache")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def link_to_parent(path: Path) -> None:
    (path / "c0" / "up").symlink_to("..")


def broken_link(path: Path) -> None:
    (path / "c0" / "z.png").symlink_to("/nonexistent.png")


def thumbnails(path: Path) -> None:
    place = path / "c0" / "@eaDir" / "0.png"
    place.mkdir(parents=True)
    picture(0, 0).save(place / "SYNOPHOTO_THUMB_M.jpg")


def not_utf8(path: Path) -> None:
    os.rename(path / "c3", os.path.join(os.fsencode(path), b"caf\xe9"))  # noqa: PTH104, PTH118


def hidden(path: Path) -> None:
    (path / "c0").rename(path / ".net")


def another_kind(path: Path) -> None:
    (path / "c0" / "IMG_0001.HEIC").write_bytes(b"x")


def empty_class(path: Path) -> None:
    (path / "class_without_images").mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (link_to_parent, ["link 'c0/up'", "a folder that holds it; remove it"]),
        (broken_link, ["link 'c0/z.png'", "'/nonexistent.png', which is not there"]),
        (thumbnails, ["'c0/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg'", "1 and 3 folders deep"]),
        (not_utf8, [r"'caf\xe9'", "is not UTF-8; rename it"]),
        (hidden, ["'.net/0.png'", "begins with a dot is hidden; rename it"]),
        (another_kind, ["'c0/IMG_0001.HEIC'", "is not read"]),
        (empty_class, ["'class_without_images'", "no images"]),
    ],
)
def test_what_cannot_be_read_is_named_with_a_cold_and_with_a_warm_cache(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    path = folder_of(tmp_path / "birds")
    opened(path, tmp_path / "cache")
    spoil(path)
    refused(path, *words)
    (tmp_path / "cache").rename(tmp_path / "warm")
    refused(path, *words)


def test_one_name_in_two_spellings_is_one_class(tmp_path: Path) -> None:
    others = [f"c{i}" for i in range(6)]
    both = folder_of(tmp_path / "both", [COMPOSED, APART, *others])
    (both / APART / "1.png").rename(both / APART / "2.png")
    (both / APART / "0.png").rename(both / APART / "3.png")
    data = opened(both, tmp_path / "cache")
    assert len(images_of(data, COMPOSED)) == 4
    assert sum(len(split.classes) for split in data.splits.values()) == 7


def test_a_split_names_a_class_in_either_spelling(tmp_path: Path) -> None:
    names = [APART, *(f"c{i}" for i in range(5))]
    path = folder_of(tmp_path / "birds", names)
    splits = {"train": [COMPOSED, "c0"], "val": ["c1", "c2"], "test": ["c3", "c4"]}
    (path / "dataset.json").write_text(json.dumps({"splits": splits}))
    assert opened(path, tmp_path / "cache").splits["train"].classes == ("c0", COMPOSED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(tmp_path: Path, orientation: int) -> None:
    """Pillow's own transposition, of a copy, is the oracle."""
    from PIL import ImageOps

    path = folder_of(tmp_path / "birds")
    plain = opened(path, tmp_path / "cache")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = picture(0, 0)
    image.save(path / "c0" / "0.png", exif=exif)
    with Image.open(path / "c0" / "0.png") as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR))
    data = opened(path, tmp_path / "cache")
    np.testing.assert_array_equal(images_of(data, "c0")[0], expected)
    np.testing.assert_array_equal(images_of(data, "c1"), images_of(plain, "c1"))


def test_only_sets_that_are_read_otherwise_get_another_digest(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "birds")
    source = ImageFolder("birds", path)
    cache = tmp_path / "cache"
    assert opened(path, cache).digest == source.digest(cache, path)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture(0, 0).save(path / "c0" / "0.png", exif=exif)
    turned = opened(path, cache).digest
    assert turned != source.digest(cache, path)
    assert opened(path, cache).digest == opened(path, tmp_path / "other").digest == turned


def test_a_drawing_in_alpha_is_composed_on_white(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "birds")
    for file in path.rglob("*.png"):
        with Image.open(file) as image:
            alpha = image.convert("L").resize((32, 32))
        layers = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        layers.putalpha(alpha)
        layers.save(file)
    found = images_of(opened(path, tmp_path / "cache"), "c0")[0]
    with Image.open(path / "c0" / "0.png") as image:
        alpha = np.asarray(image)[..., 3].astype(int)
    assert np.abs(found.astype(int) - (255 - alpha)[..., None]).max() <= 1


def test_a_set_of_one_colour_is_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "birds")
    for file in path.rglob("*.png"):
        Image.new("RGB", (32, 32), (0, 0, 0)).save(file)
    refused(path, "of the one colour (0, 0, 0)")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mean": [123.675, 116.28, 103.53]}, ["mean", "123.675", "0.485, 0.456, 0.406"]),
        ({"std": [58.395, 57.12, 57.375]}, ["std", "58.395", "0.229, 0.224, 0.225"]),
        ({"std": [0, 0, 0]}, ["std", "0 is no deviation"]),
        ({"std": [-0.2, 0.2, 0.2]}, ["std", "-0.2 is no deviation"]),
        ({"mean": [float("nan"), 0.5, 0.5]}, ["mean", "finite number"]),
    ],
)
def test_pixels_are_in_0_to_1(tmp_path: Path, values: object, words: list[str]) -> None:
    path = folder_of(tmp_path / "birds")
    (path / "dataset.json").write_text(json.dumps(values))
    refused(path, "dataset.json", *words)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "birds")
    (path / "dataset.json").write_text('{"licence": "mine"}', encoding="utf-8-sig")
    assert opened(path, tmp_path / "cache").licence == "mine"
    for index, split in enumerate(("train", "val", "test")):
        rows = io.StringIO()
        csv.writer(rows).writerows([("filename", "label"), (f"{split}.png", "bird")])
        (path / f"{split}.csv").write_text(rows.getvalue(), encoding="utf-8-sig")
        picture(0, index).save(path / f"{split}.png")
    with open_tree(path) as tree:
        assert arrange_by_csv(tree)["val"] == {"bird": ["val.png"]}


def test_a_zip_of_windows_is_read(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "birds")
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as archive:
        for file in sorted(path.rglob("*.png")):
            name = "\\".join(("birds", *file.relative_to(path).parts))
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    ours, plain = opened(tmp_path / "birds.zip", tmp_path / "a"), opened(path, tmp_path / "b")
    np.testing.assert_array_equal(images_of(ours, "c3"), images_of(plain, "c3"))


def test_images_in_two_splits_are_counted(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(6)]
    path = folder_of(tmp_path / "birds", names)
    splits = {"train": names[:2], "val": names[2:4], "test": names[4:]}
    (path / "dataset.json").write_text(json.dumps({"splits": splits}))
    source = ImageFolder("birds", path)
    assert not any(", too" in one.text for one in verify(source, path, tmp_path / "cache"))
    (path / "c5" / "0.png").write_bytes((path / "c0" / "1.png").read_bytes())
    found = [one for one in verify(source, path, tmp_path / "cache") if ", too" in one.text]
    text = "1 images of test are in train, too: image 1 of class 'c5' is image 2 of class 'c0'"
    assert [(one.level, one.text) for one in found] == [("note", text)]
