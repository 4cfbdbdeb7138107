"""A user's own images: found by one flag, divided by a rule, refused in plain words."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.reading.decoding import to_rgb
from bench.data.sets.image_folder import ImageFolder, draw_splits
from bench.data.sources import dataset_source, open_data
from bench.data.verify import verify
from bench.errors import BenchError


def birds(folder: Path, n_classes: int = 30, n_images: int = 2, side: int = 20) -> Path:
    for index in range(n_classes):
        place = folder / f"bird{index:02d}"
        place.mkdir(parents=True)
        for number in range(n_images):
            Image.new("RGB", (side, side), (index, number, 9)).save(place / f"{number}.png")
    return folder


def test_thirty_classes_are_divided(tmp_path: Path) -> None:
    source = ImageFolder("birds", birds(tmp_path / "birds"))
    data = open_data(source, tmp_path / "cache", explicit=tmp_path / "birds")
    sizes = {name: len(split.classes) for name, split in data.splits.items()}
    assert sizes == {"train": 19, "val": 5, "test": 6}
    assert (data.image_size, data.name) == (32, "birds")
    seen = [name for split in data.splits.values() for name in split.classes]
    assert sorted(seen) == [f"bird{i:02d}" for i in range(30)]
    for split in data.splits.values():
        for index, name in enumerate(split.classes):
            assert split.class_images(index)[0, 0, 0, 0] == int(name[4:])
    findings = verify(source, tmp_path / "birds", tmp_path)
    assert [finding.level for finding in findings] == ["ok", "ok", "ok", "note"]
    assert "19 classes and 38 images" in findings[0].text


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_tar_holds_the_same_images_as_its_folder(tmp_path: Path, ending: str) -> None:
    folder = birds(tmp_path / "birds")
    (folder / "dataset.json").write_text(json.dumps({"seed": 3, "licence": "mine"}), "utf-8")
    path = tmp_path / f"birds{ending}"
    with tarfile.open(path, "w:gz" if ending.endswith("gz") else "w") as archive:
        archive.add(folder, "birds")
    unpacked, packed = (
        open_data(ImageFolder("birds", place), tmp_path / f"cache{place.suffix}", explicit=place)
        for place in (folder, path)
    )
    for split, ours in packed.splits.items():
        assert ours.classes == unpacked.splits[split].classes
        assert np.array_equal(ours.images, unpacked.splits[split].images)
    assert packed.licence == "mine"


def test_a_tar_with_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "birds.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(birds(tmp_path / "birds"), "birds")
        link = tarfile.TarInfo("birds/bird00/9.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BenchError, match="is a symbolic link"):
        ImageFolder("birds", path)


def test_gif_tif_and_bmp_are_images_too(tmp_path: Path) -> None:
    folder = birds(tmp_path / "birds", 6)
    for number, ending in enumerate(("gif", "tif", "TIFF", "bmp")):
        path = folder / f"bird{number:02d}" / "1.png"
        with Image.open(path) as image:
            image.save(path.with_suffix(f".{ending}"))
        path.unlink()
    for path in (folder / "bird01").glob("*.png"):
        path.unlink()
    data = open_data(ImageFolder("birds", folder), tmp_path / "cache", explicit=folder)
    counts = {c: n for s in data.splits.values() for c, n in zip(s.classes, s.counts, strict=True)}
    assert counts == {f"bird{i:02d}": 1 if i == 1 else 2 for i in range(6)}
    for split in data.splits.values():
        for index, name in enumerate(split.classes):
            assert np.all(split.class_images(index)[..., 0] == int(name[4:]))


def clutter(folder: Path) -> None:
    """Put in what belongs to no data set and is passed over."""
    (folder / ".thumbnails").mkdir()
    for name in (".thumbnails/a.png", "Thumbs.db", "README", "labels.csv", "bird00/notes.txt"):
        (folder / name).write_bytes(b"clutter")


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("bird06/0.heic", "'bird06/0.heic' in .* is not read: images are .png.*convert it"),
        ("bird00/7.PPM", "'bird00/7.PPM' in .* is not read"),
        ("bird06/0001", "class 'bird06' in .* has no images"),
        ("bird06/more/0001", "class 'bird06' in .* has no images"),
        ("bird06/more/0.png", "images lie 1 and 2 folders deep"),
    ],
)
def test_nothing_of_one_level_is_left_out(
    tmp_path: Path, writers, form: str, place: str, expected: str
) -> None:
    folder = birds(tmp_path / "birds", 6)
    clutter(folder)
    open_data(ImageFolder("birds", folder), tmp_path / "cache", explicit=folder)
    refused_with(folder, place, expected, form, writers)


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("train/a/more/0.png", "image 'train/a/more/0.png' in .* is not laid out <split>"),
        ("extra/a/0.png", "image 'extra/a/0.png' in .* take it out"),
        ("train/a/0.svg", "is not read"),
        ("val/z/0001", "class 'z' of split val in .* has no images"),
    ],
)
def test_nothing_of_split_folders_is_left_out(
    tmp_path: Path, pixels, writers, form: str, place: str, expected: str
) -> None:
    folder = writers[0](tmp_path / "own", pixels)
    refused_with(folder, place, expected, form, writers)


def refused_with(folder: Path, place: str, expected: str, form: str, writers) -> None:
    """Expect one line for an image folder with one file more, in a form of it."""
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 20)).save(folder / place, "png")
    path = folder
    if form == "zip":
        path = writers[1](folder, folder.with_suffix(".zip"))
    elif form == "tar":
        path = folder.with_suffix(".tar")
        with tarfile.open(path, "w") as archive:
            archive.add(folder, ".")
    with pytest.raises(BenchError, match=expected) as caught:
        open_data(ImageFolder("own", path), folder.parent / "cache", explicit=path)
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    folder = birds(tmp_path / "birds", 6)
    (folder / "bird06").mkdir()
    with pytest.raises(BenchError, match=r"class 'bird06' .* has no images"):
        open_data(ImageFolder("birds", folder), tmp_path / "cache", explicit=folder)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path, ending: str) -> None:
    folder = birds(tmp_path / "birds", 6, side=32)
    ramp = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    Image.fromarray(ramp).save(folder / "bird00" / f"2.{ending}")
    data = open_data(ImageFolder("birds", folder), tmp_path / "cache", explicit=folder)
    split = next(split for split in data.splits.values() if "bird00" in split.classes)
    image = split.class_images(split.classes.index("bird00"))[2]
    np.testing.assert_array_equal(image, np.rint(ramp / 257).astype(np.uint8)[..., None] + [0] * 3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200]], np.int32), [0, 200]),
        (np.array([[0, 51400]], np.int32), [0, 200]),
        (np.array([[0, 51400]], ">u2"), [0, 200]),
    ],
)
def test_whole_numbers_of_more_bits(values: np.ndarray, expected: list[int]) -> None:
    image = Image.fromarray(values)
    assert np.asarray(to_rgb(image))[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    "values", [np.array([[0, 1]], np.float32), np.array([[-1, 70000]], np.int32)]
)
def test_values_that_are_no_brightness(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not those of 8 or 16 bits"):
        to_rgb(Image.fromarray(values))


def test_the_draw_depends_on_names_and_seed_only() -> None:
    names = [f"c{i}" for i in range(40)]
    first = draw_splits(names)
    assert draw_splits(names[::-1]) == first
    assert draw_splits(names, 1) != first
    assert {k: len(v) for k, v in first.items()} == {"train": 26, "val": 6, "test": 8}
    assert sorted(name for part in first.values() for name in part) == sorted(names)


@pytest.mark.parametrize("n", [6, 9, 15, 100])
def test_every_number_of_classes_leaves_some_to_train(n: int) -> None:
    sizes = {k: len(v) for k, v in draw_splits([str(i) for i in range(n)]).items()}
    assert sum(sizes.values()) == n
    assert min(sizes.values()) >= 2
    assert n < 15 or min(sizes["val"], sizes["test"]) >= 5


def test_size_mean_and_splits_may_be_given(tmp_path: Path, writers) -> None:
    folder = birds(tmp_path / "birds", 6, side=90)
    assert ImageFolder("birds", folder).image_size == 84
    names = sorted(path.name for path in folder.iterdir())
    given = {"train": names[:2], "val": names[2:4], "test": names[4:]}
    settings = {"image_size": 48, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "splits": given}
    before = ImageFolder("birds", folder).digest(tmp_path, folder)
    (folder / "dataset.json").write_text(json.dumps(settings))
    source = ImageFolder("birds", folder)
    assert source.digest(tmp_path, folder) != before
    data = open_data(source, tmp_path / "cache", explicit=folder)
    assert data.splits["val"].images.shape == (4, 48, 48, 3)
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1, 1, 1))
    assert {name: list(split.classes) for name, split in data.splits.items()} == given
    packed = writers[1](folder, tmp_path / "birds.zip", "birds/")
    again = open_data(ImageFolder("birds", packed), tmp_path / "cache", explicit=packed)
    np.testing.assert_array_equal(again.splits["test"].images, data.splits["test"].images)


def test_splits_by_folder_go_before_the_draw(tmp_path: Path, pixels, writers) -> None:
    folder = writers[0](tmp_path / "own", pixels)
    data = open_data(ImageFolder("own", folder), tmp_path / "cache", explicit=folder)
    assert {n: set(s.classes) for n, s in data.splits.items()} == {
        n: set(classes) for n, classes in pixels.items()
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{", "is not JSON"),
        ('{"size": 3}', "size: .*known keys: image_size"),
        ('{"image_size": 3}', "image_size"),
        ('{"splits": {"train": ["bird00"], "val": ["bird01"], "test": ["x"]}}', "names class 'x'"),
        ('{"splits": {"train": ["bird00"]}}', "names the splits train"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: str, expected: str) -> None:
    folder = birds(tmp_path / "birds", 6)
    (folder / "dataset.json").write_text(settings)
    with pytest.raises(BenchError, match=expected) as caught:
        open_data(ImageFolder("birds", folder), tmp_path / "cache", explicit=folder)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="holds no images"):
        ImageFolder("own", tmp_path / "empty")
    with pytest.raises(BenchError, match="does not exist"):
        ImageFolder("own", tmp_path / "nowhere")
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (4, 4)).save(flat / "a.png")
    with pytest.raises(BenchError, match="0 folders deep"):
        open_data(ImageFolder("own", flat), tmp_path / "cache", explicit=flat)
    few = birds(tmp_path / "few", 5)
    with pytest.raises(BenchError, match="5 classes cannot be divided"):
        open_data(ImageFolder("own", few), tmp_path / "cache", explicit=few)
    (tmp_path / "a.tgz").write_bytes(b"")
    with pytest.raises(BenchError, match="is not a complete tar"):
        ImageFolder("own", tmp_path / "a.tgz")


def test_names_of_data_sets(tmp_path: Path) -> None:
    assert dataset_source("cifar_fs", {}).name == "cifar_fs"
    folder = birds(tmp_path / "birds", 6)
    assert isinstance(dataset_source("birds", {"birds": folder}), ImageFolder)
    with pytest.raises(BenchError, match=r"did you mean cifar_fs.*--dataset-dir cifar=PATH"):
        dataset_source("cifar", {})
    with pytest.raises(BenchError, match="small letters"):
        dataset_source("My Birds", {"My Birds": folder})
