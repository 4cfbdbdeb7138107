"""Folders and zips of images: what is accepted, what is refused and in which words."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.data.base import ClassImages
from bench.data.reading.folders import SPLIT_NAMES
from bench.data.sources import open_data
from bench.data.verify import count_findings, verify
from bench.errors import BenchError


def _same(data, pixels):
    for name, classes in pixels.items():
        for index, label in enumerate(sorted(classes)):
            np.testing.assert_array_equal(
                data.splits[name].class_images(index), classes[label], strict=True
            )


@pytest.mark.parametrize("prefix", ["", "tiny/"])
def test_zip_holds_the_same_as_its_folder(tiny, tree, tmp_path, pixels, writers, prefix):
    archive = writers[1](tree / "tiny", tmp_path / "tiny.zip", prefix)
    data = open_data(tiny, tmp_path / "cache", explicit=archive)
    _same(data, pixels)
    assert not list(tmp_path.glob("**/*.tmp"))


def test_zip_goes_before_the_folder(tiny, tree, writers):
    assert tiny.find(tree) == tree / "tiny"
    archive = writers[1](tree / "tiny", tree / "tiny.zip")
    assert tiny.find(tree) == archive
    assert tiny.find(tree, explicit=tree / "tiny") == tree / "tiny"


@pytest.mark.parametrize(
    "names",
    [{"train": "meta_train", "val": "meta_val", "test": "meta_test"}, {"val": "validation"}],
)
@pytest.mark.parametrize("ending", ["png", "bmp", "webp"])
def test_other_names_and_formats(tiny, tmp_path, pixels, writers, names, ending):
    folder = writers[0](tmp_path / "set", pixels, lambda split: names.get(split, split), ending)
    _same(open_data(tiny, tmp_path / "cache", explicit=folder), pixels)
    assert set(names.values()) <= set(SPLIT_NAMES)


def test_jpeg_is_close(tiny, tmp_path, writers):
    grey = np.full((2, 8, 8, 3), 120, dtype=np.uint8)
    grey[1] += 1
    pixels = {
        "train": {"a": grey, "b": grey, "c": grey},
        "val": {"d": grey, "e": grey},
        "test": {"f": grey, "g": grey},
    }
    folder = writers[0](tmp_path / "set", pixels, ending="JPG")
    images = open_data(tiny, tmp_path / "cache", explicit=folder).splits["train"].images
    assert np.abs(images.astype(int) - 120).max() <= 2


def test_clutter_is_ignored(tiny, tree, tmp_path, pixels):
    for place in ("train/a/.DS_Store", "train/a/._000.png", "train/a/labels.csv", "README.md"):
        (tree / "tiny" / place).write_bytes(b"clutter")
    for place in ("__MACOSX/train/zz", "train/.cache"):
        (tree / "tiny" / place).mkdir(parents=True)
        (tree / "tiny" / place / "0.png").write_bytes(b"clutter")
    _same(open_data(tiny, tmp_path / "cache", tree), pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_every_mode_becomes_rgb(tiny, tree, tmp_path, mode):
    place = tree / "tiny" / "val" / "d" / "000.png"
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    image.save(place)
    data = open_data(tiny, tmp_path / "cache", tree)
    assert np.all(data.splits["val"].class_images(0)[0] == 255)


def test_another_size_is_resized_bilinearly(tiny, tree, tmp_path):
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (20, 1, 3))  # (20, 32, 3)
    Image.fromarray(ramp).save(tree / "tiny" / "val" / "d" / "000.png")
    image = open_data(tiny, tmp_path / "cache", tree).splits["val"].class_images(0)[0]
    # A linear ramp stays one: pixel j covers columns 4j to 4j + 3, whose mean is 8 (4j + 1.5).
    np.testing.assert_allclose(image[0, 1:-1, 0], 8 * (4 * np.arange(1, 7) + 1.5), atol=1)
    assert np.all(image == image[:1])


def _refused(tiny, tmp_path, *parts, **place) -> str:
    with pytest.raises(BenchError) as caught:
        open_data(tiny, tmp_path / "cache", **place)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_no_data_folder(tiny, tmp_path):
    _refused(tiny, tmp_path, "'tiny'", "--data DIR", "make it")
    _refused(tiny, tmp_path, "nowhere", "--data DIR", data_dir=tmp_path / "nowhere")
    _refused(tiny, tmp_path, "was not found in", "make it", data_dir=tmp_path)
    assert tiny.find(tmp_path) is None
    assert tiny.find(None) is None


def test_explicit_place_that_is_not_there(tiny, tmp_path):
    explicit = tmp_path / "gone.zip"
    _refused(tiny, tmp_path, "gone.zip", "--dataset-dir tiny=PATH", explicit=explicit)


def test_web_page_instead_of_a_zip(tiny, tmp_path):
    page = tmp_path / "tiny.zip"
    page.write_text("<!DOCTYPE html><title>Quota exceeded</title>\n")
    _refused(tiny, tmp_path, "tiny.zip", "<!DOCTYPE html>", "web page", data_dir=tmp_path)


def test_truncated_zip(tiny, tree, tmp_path, writers):
    archive = writers[1](tree / "tiny", tmp_path / "tiny.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    _refused(tiny, tmp_path, "not a complete zip", "download it again", explicit=archive)


def test_folder_without_the_splits(tiny, tmp_path, tree):
    (tmp_path / "other" / "images" / "a").mkdir(parents=True)
    _refused(tiny, tmp_path, "split train", "<split>/<class>", explicit=tmp_path / "other")
    (tree / "tiny" / "val").rename(tree / "tiny" / "dev")
    _refused(tiny, tmp_path, "split val", "meta_val", data_dir=tree)


@pytest.mark.parametrize("zipped", [False, True])
def test_class_without_images(tiny, tree, tmp_path, writers, zipped):
    (tree / "tiny" / "val" / "empty").mkdir()
    place = writers[1](tree / "tiny", tmp_path / "x.zip") if zipped else tree / "tiny"
    _refused(tiny, tmp_path, "class 'empty' of split val", "has no images", explicit=place)


def test_class_that_holds_only_other_files(tiny, tree, tmp_path):
    (tree / "tiny" / "val" / "texts").mkdir()
    (tree / "tiny" / "val" / "texts" / "a.txt").write_text("x")
    _refused(tiny, tmp_path, "class 'texts'", "has no images", data_dir=tree)


def test_split_that_is_there_twice(tiny, tree, tmp_path):
    (tree / "tiny" / "meta_train" / "q").mkdir(parents=True)
    _refused(tiny, tmp_path, "'meta_train' and 'train'", "remove one", data_dir=tree)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\nrest"])
def test_corrupted_image_is_named(tiny, tree, tmp_path, writers, zipped, content):
    (tree / "tiny" / "test" / "g" / "004.png").write_bytes(content)
    place = writers[1](tree / "tiny", tmp_path / "x.zip") if zipped else tree / "tiny"
    _refused(tiny, tmp_path, "'test/g/004.png'", "replace it", explicit=place)


def test_flipped_byte_in_a_zip_is_noticed(tiny, tree, tmp_path, writers):
    archive = writers[1](tree / "tiny", tmp_path / "x.zip")
    with zipfile.ZipFile(archive) as file:
        entry = file.getinfo("train/b/002.png")
    content = bytearray(archive.read_bytes())
    content[entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2] ^= 0xFF
    archive.write_bytes(content)
    _refused(tiny, tmp_path, "'train/b/002.png'", explicit=archive)


def test_missing_class_is_found_by_open_and_by_verify(tiny, tree, tmp_path):
    assert [f.level for f in verify(tiny, tree / "tiny", tmp_path)] == ["ok", "ok", "ok", "note"]
    for image in (tree / "tiny" / "train" / "c").iterdir():
        image.unlink()
    (tree / "tiny" / "train" / "c").rmdir()
    assert verify(tiny, tree / "tiny", tmp_path)[0].level == "error"
    _refused(tiny, tmp_path, "split train has 2 classes, not 3", "make it", data_dir=tree)


def test_known_digest_is_recognised(tiny, tree, tmp_path, monkeypatch):
    last = verify(tiny, tree / "tiny", tmp_path)[-1]
    digest = last.text.split()[1].rstrip(":")
    monkeypatch.setattr(type(tiny), "known_digests", {digest: "made by the test"})
    last = verify(tiny, tree / "tiny", tmp_path)[-1]
    assert (last.level, "made by the test" in last.text) == ("ok", True)


def test_counts_and_shared_classes():
    def part(name, count):
        return ClassImages(name, count, lambda: np.zeros(0))

    expected = {"train": (2, 5), "val": (1, None)}
    listing = {"train": [part("a", 5), part("b", 4)], "val": [part("a", 9)]}
    assert [(f.level, f.text) for f in count_findings(expected, listing)] == [
        ("error", "class 'b' of train has 4 images, not 5"),
        ("ok", "split val has 1 classes and 9 images"),
        ("error", "class 'a' is in both train and val"),
    ]
