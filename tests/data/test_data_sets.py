"""The named data sets: official splits, official layouts made small, and what is missing named."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bench import registry
from bench.data.sets import SPLITS, read_split
from bench.data.sets.cub import Cub, CubSubsetCropped
from bench.data.sets.mini_imagenet import MiniImagenet, MiniImagenetSubset
from bench.data.sets.omniglot import Omniglot
from bench.data.sets.vgg_flower import VggFlower
from bench.data.sources import open_data
from bench.data.verify import digest_of, verify
from bench.errors import BenchError

SETS = [registry.load("dataset", name) for name in registry.names("dataset")]


@functools.cache
def png(colour: int) -> bytes:
    """An image of one colour, 4 px: the loader makes it the data set's size."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (colour % 256, colour // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def jpg_place(folder: Path, name: str, colour: int = 0) -> None:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(png(colour))


def small(source, n_images: int | None = None, **expected: tuple[int, int | None]):
    """Return the source with other expectations, so that a small copy can stand for it."""
    kind = type("Small", (type(source),), {"expected": expected or source.expected})
    kind.n_images = n_images
    return kind()


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.name)
def test_every_set_describes_itself(kind) -> None:
    source = kind()
    assert source.image_size in (32, 84)
    assert len(source.mean) == len(source.std) == 3
    assert source.licence
    assert source.how_to_get
    assert list(source.expected) == list(SPLITS)
    split = source.class_split()
    if split:
        assert {name: len(part) for name, part in split.items()} == {
            name: n_classes for name, (n_classes, _) in source.expected.items()
        }
        names = [name for part in split.values() for name in part]
        assert len(names) == len(set(names)), "splits share a class"
        for part in split.values():
            assert list(part) == sorted(part)
    for download in source.downloads:
        assert download.url.startswith("https://")
        algorithm, _, digest = download.digest.partition(":")
        assert len(digest) == {"md5": 32, "sha256": 64}[algorithm]
    assert all(len(digest) == 64 for digest in source.known_digests)


def test_cub_splits_by_class_number() -> None:
    split = Cub().class_split()
    numbered = sorted(name for part in split.values() for name in part)
    assert [int(name[:3]) for name in numbered] == list(range(1, 201))
    for index, name in enumerate(numbered):
        wanted = "train" if index % 2 == 0 else "val" if index % 4 == 1 else "test"
        assert name in split[wanted]


def test_packs_hold_classes_of_the_complete_split() -> None:
    whole, part = Cub().class_split(), CubSubsetCropped().class_split()
    assert all(set(part[split]) <= set(whole[split]) for split in SPLITS)
    totals = [sum(part[split].values()) for split in SPLITS]
    assert totals == [3577, 1876, 2003]
    assert sum(totals) == CubSubsetCropped.n_images
    assert MiniImagenetSubset().class_split() == MiniImagenet().class_split()
    assert MiniImagenetSubset.name != MiniImagenet.name


def test_omniglot_divides_alphabets() -> None:
    split = read_split("omniglot")
    alphabets = [name for part in SPLITS for name in split[part]]
    assert len(set(alphabets)) == 50
    assert [len(split[part]) for part in SPLITS] == [25, 5, 20]
    background = {**split["train"], **split["val"]}
    smallest = sorted(background, key=background.get)[:5]
    assert set(smallest) == set(split["val"])
    assert sum(len(part) for part in Omniglot().class_split().values()) == 1623


def cub_tree(folder: Path, n_images: int = 2) -> Path:
    """The official folder, made small; the first class of train has one image more."""
    names = sorted(name for part in Cub().class_split().values() for name in part)
    lines = []
    for index, name in enumerate(names):
        for number in range(n_images + (index == 0)):
            lines.append(f"{len(lines) + 1} {name}/{number:04d}.jpg")
            jpg_place(folder / "images", f"{name}/{number:04d}.jpg", index)
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "README").write_text("not an image")
    return folder


def test_cub_from_the_official_archive(tmp_path: Path) -> None:
    data = tmp_path / "data"
    cub_tree(tmp_path / "CUB_200_2011")
    data.mkdir()
    with tarfile.open(data / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(tmp_path / "CUB_200_2011", "CUB_200_2011")
    source = small(Cub(), 401)
    opened = open_data(source, tmp_path / "cache", data)
    assert [len(opened.splits[s].classes) for s in SPLITS] == [100, 50, 50]
    assert opened.splits["train"].counts.tolist() == [3] + [2] * 99
    assert opened.splits["val"].images.shape == (100, 84, 84, 3)
    # class 2 (index 1) is the first of val; its colour is its index
    assert opened.splits["val"].classes[0] == "002.Laysan_Albatross"
    assert opened.splits["val"].images[0, 40, 40].tolist() == [1, 0, 7]
    folder = open_data(source, tmp_path / "cache", explicit=tmp_path / "CUB_200_2011")
    np.testing.assert_array_equal(folder.splits["test"].images, opened.splits["test"].images)
    assert folder.digest != opened.digest


def test_cub_names_what_its_own_list_misses(tmp_path: Path) -> None:
    folder = cub_tree(tmp_path / "CUB_200_2011", 1)
    (folder / "images" / "003.Sooty_Albatross" / "0000.jpg").unlink()
    with pytest.raises(BenchError, match=r"lacks 1 of the 201 images .*003\.Sooty_Albatross/0000"):
        open_data(small(Cub(), 201), tmp_path / "cache", tmp_path)
    (folder / "images.txt").unlink()
    with pytest.raises(BenchError, match=r"split train has 99 classes.*'003\.Sooty_Albatross'"):
        open_data(small(Cub(), 201), tmp_path / "cache", tmp_path)


def test_cub_of_another_total_is_incomplete(tmp_path: Path) -> None:
    cub_tree(tmp_path / "CUB_200_2011", 1)
    with pytest.raises(BenchError, match="201 images in all, not 11788"):
        open_data(Cub(), tmp_path / "cache", tmp_path)


def mini_classes() -> dict[str, list[str]]:
    return {split: list(part) for split, part in MiniImagenet().class_split().items()}


SMALL_MINI = {"train": (64, 2), "val": (16, 2), "test": (20, 2)}


def mini_tree(folder: Path, layout: str) -> Path:
    """miniImageNet with two images a class, in one of the layouts that people have."""
    number = 0
    for split, names in mini_classes().items():
        rows = []
        for name in names:
            for index in range(2):
                file = f"{name}{index:08d}.jpg"
                place = {"split": f"{split}/{name}/", "class": f"{name}/", "csv": "images/"}[layout]
                jpg_place(folder, place + file, number)
                rows.append(f"{file},{name}")
            number += 1
        if layout == "csv":
            (folder / f"{split}.csv").write_text("\n".join(["filename,label", *rows[::-1]]) + "\n")
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_mini_imagenet_layouts_hold_the_same(tmp_path: Path, writers, zipped: bool) -> None:
    source, seen = small(MiniImagenet(), **SMALL_MINI), []
    for layout in ("split", "class", "csv"):
        place = mini_tree(tmp_path / layout / "mini_imagenet", layout)
        if zipped:
            place = writers[1](place, tmp_path / layout / "mini_imagenet.zip", "mini/")
        seen.append(open_data(source, tmp_path / "cache", explicit=place))
    for other in seen[1:]:
        for split in SPLITS:
            assert other.splits[split].classes == seen[0].splits[split].classes
            np.testing.assert_array_equal(other.splits[split].images, seen[0].splits[split].images)
    assert len({data.digest for data in seen}) == 3


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("image", r"image 'n\d+\.jpg' of val.csv is not in"),
        ("file", "holds 0 files val.csv, not one"),
        ("columns", "needs the columns filename and label"),
        ("label", "split val holds 'n09999999' instead of 'n01855672'"),
    ],
)
def test_mini_imagenet_csv_that_is_wrong(tmp_path: Path, damage: str, expected: str) -> None:
    folder = mini_tree(tmp_path / "mini_imagenet", "csv")
    table = folder / "val.csv"
    if damage == "image":
        next((folder / "images").glob(f"{mini_classes()['val'][0]}*")).unlink()
    elif damage == "file":
        table.unlink()
    elif damage == "columns":
        table.write_text("name,class\na.jpg,b\n")
    else:
        table.write_text(table.read_text().replace(",n01855672", ",n09999999"))
    with pytest.raises(BenchError, match=expected):
        open_data(small(MiniImagenet(), **SMALL_MINI), tmp_path / "cache", tmp_path)


def test_class_of_another_split_is_named(tmp_path: Path) -> None:
    folder = mini_tree(tmp_path / "mini_imagenet", "split")
    names = mini_classes()
    (folder / "val" / names["val"][0]).rename(folder / "val" / "elsewhere")
    findings = verify(small(MiniImagenet(), **SMALL_MINI), folder, tmp_path)
    assert any(
        f.level == "error" and "'elsewhere' instead of" in f.text and names["val"][0] in f.text
        for f in findings
    )


def test_flowers_from_the_official_files(tmp_path: Path) -> None:
    labels = np.array([[*range(1, 103), 5, 90]])
    folder = tmp_path / "vgg_flower"
    folder.mkdir()
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        for number in range(labels.size):
            content = png(number)
            member = tarfile.TarInfo(f"jpg/image_{number + 1:05d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    savemat(folder / "imagelabels.mat", {"labels": labels})
    data = open_data(small(VggFlower(), 104), tmp_path / "cache", tmp_path)
    split = data.splits["test"]
    assert split.classes == tuple(VggFlower().class_split()["test"])
    assert split.class_images(split.classes.index("005")).shape[0] == 2
    assert split.class_images(split.classes.index("005"))[1, 0, 0].tolist() == [102, 0, 7]
    train = data.splits["train"]
    assert train.class_images(train.classes.index("090"))[1, 0, 0].tolist() == [103, 0, 7]


@pytest.mark.parametrize("labels", [[1, 2, 103], [0], "text"])
def test_flowers_with_wrong_labels(tmp_path: Path, labels) -> None:
    folder = tmp_path / "vgg_flower"
    jpg_place(folder, "jpg/image_00001.jpg")
    if labels == "text":
        (folder / "imagelabels.mat").write_text("<html>")
    else:
        savemat(folder / "imagelabels.mat", {"labels": np.array([labels])})
    with pytest.raises(BenchError, match=r"download imagelabels\.mat again"):
        open_data(VggFlower(), tmp_path / "cache", tmp_path)


def test_flowers_that_lack_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "vgg_flower"
    jpg_place(folder, "jpg/image_00001.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2]])})
    with pytest.raises(BenchError, match=r"lacks image_00002\.jpg"):
        open_data(VggFlower(), tmp_path / "cache", tmp_path)


def omniglot_zips(folder: Path, drawings: int = 2) -> Path:
    folder.mkdir()
    split = read_split("omniglot")
    parts = {
        "images_background": {**split["train"], **split["val"]},
        "images_evaluation": split["test"],
    }
    for part, alphabets in parts.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for alphabet, n in alphabets.items():
                for number in range(1, n + 1):
                    for drawing in range(drawings):
                        name = f"{part}/{alphabet}/character{number:02d}/{drawing:02d}.png"
                        archive.writestr(name, png(number))
    return folder


def test_omniglot_from_the_official_zips(tmp_path: Path) -> None:
    omniglot_zips(tmp_path / "omniglot")
    kind = type("Small", (Omniglot,), {"expected": {s: (n, 2) for s, (n, _) in EXPECTED.items()}})
    kind.class_split = lambda self: {
        split: dict.fromkeys(part) for split, part in Omniglot.class_split(self).items()
    }
    data = open_data(kind(), tmp_path / "cache", tmp_path)
    assert [len(data.splits[split].classes) for split in SPLITS] == [883, 81, 659]
    test = data.splits["test"]
    assert test.classes[0] == "Angelic/character01"
    assert test.class_images(2)[0, 0, 0].tolist() == [3, 0, 7]
    findings = verify(Omniglot(), tmp_path / "omniglot", tmp_path)
    assert "has 2 images, not 20" in findings[0].text


EXPECTED = Omniglot.expected


def test_published_digest_is_compared(tmp_path: Path, monkeypatch) -> None:
    folder = cub_tree(tmp_path / "CUB_200_2011", 1)
    path = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "CUB_200_2011")
    source = small(Cub(), 201)
    texts = {f.level: f.text for f in verify(source, path, tmp_path)}
    assert "published is md5:97ec" in texts["error"]
    assert "is unknown" in texts["note"]
    download = source.downloads[0]
    own = type(download)(download.file, download.url, digest_of(path, "md5:"))
    monkeypatch.setattr(type(source), "downloads", (own,))
    assert [f.level for f in verify(source, path, tmp_path)] == ["ok", "ok", "ok", "ok", "note"]


def test_published_digests_are_compared_inside_a_folder(tmp_path: Path, monkeypatch) -> None:
    folder = omniglot_zips(tmp_path / "omniglot")
    errors = [f.text for f in verify(Omniglot(), folder, tmp_path) if f.level == "error"]
    assert any("images_background.zip has md5:" in t and "is md5:68d2" in t for t in errors)
    assert any("images_evaluation.zip has md5:" in t and "is md5:6b91" in t for t in errors)
    downloads = tuple(
        replace(one, digest=digest_of(tmp_path / one.file, "md5:")) for one in Omniglot.downloads
    )
    monkeypatch.setattr(Omniglot, "downloads", downloads)
    texts = [f.text for f in verify(Omniglot(), folder, tmp_path) if f.level == "ok"]
    assert sum("is the published file" in text for text in texts) == 2


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mini_imagenet_subset", "cub_subset_cropped"])
def test_packs_are_what_they_say(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = registry.load("dataset", name)()
    path = source.find(data_dir)
    if path is None:
        pytest.skip(f"no {name}.zip in {data_dir}")
    assert [finding.level for finding in verify(source, path, tmp_path)] == ["ok"] * 4


def test_splits_are_written_with_their_source() -> None:
    folder = Path(registry.__file__).parent / "data" / "splits"
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content["source"], path.name
        assert set(SPLITS) <= set(content), path.name
