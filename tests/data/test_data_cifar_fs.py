"""CIFAR-FS: the split, the conversion of the official archive, and the real zip."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.data.sets.cifar_fs import CifarFs, official_split, split_by_class
from bench.data.verify import verify
from bench.errors import BenchError


def test_split_has_every_class_once():
    split = official_split()
    names = [name for part in split.values() for name in part]
    assert len(names) == len(set(names)) == 100
    assert {name: len(part) for name, part in split.items()} == {"train": 64, "val": 16, "test": 20}
    assert {name: n for name, (n, _) in CifarFs.expected.items()} == {
        name: len(part) for name, part in split.items()
    }


def test_labelled_images_go_to_their_class_in_order():
    labels = np.array([2, 0, 1, 2, 0, 2])
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = ["apple", "bear", "cup"]
    listing = split_by_class(images, labels, names, {"train": ["cup", "apple"], "val": ["bear"]})
    got = {
        split: {part.name: part.read()[:, 0, 0, 0].tolist() for part in parts}
        for split, parts in listing.items()
    }
    assert got == {"train": {"apple": [1, 4], "cup": [0, 3, 5]}, "val": {"bear": [2]}}
    assert [part.name for part in listing["train"]] == ["apple", "cup"]
    assert [part.count for part in listing["train"]] == [2, 3]


def test_split_of_other_names_is_refused():
    with pytest.raises(BenchError, match="class 'zebra'"):
        split_by_class(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), ["a"], {"train": ["zebra"]})


@pytest.fixture
def official(tmp_path):
    """A folder like the official one: 500 + 100 images a class, flat, of the class's number."""
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    names = sorted(name for part in official_split().values() for name in part)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    for file, n, mark in (("train", 500, 0), ("test", 100, 1)):
        labels = np.tile(np.arange(100), n)
        rows = np.repeat(labels[:, None].astype(np.uint8), 3072, axis=1)
        rows[:, 0] = mark
        (folder / file).write_bytes(pickle.dumps({"data": rows, "fine_labels": labels.tolist()}))
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_official_archive_is_read_through_torchvision(official, tmp_path, monkeypatch, packed):
    from torchvision.datasets import cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(cifar.CIFAR100, "_check_integrity", lambda _: True)
    if packed:
        with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz", compresslevel=1) as file:
            file.add(official, "cifar-100-python")
    place = tmp_path if packed else tmp_path / "data"
    source = CifarFs()
    assert source.find(place).name == ("cifar-100-python.tar.gz" if packed else "cifar-100-python")
    names = sorted(name for part in official_split().values() for name in part)
    with source.contents(source.locate(place)) as listing:
        assert {name: (len(parts), parts[0].count) for name, parts in listing.items()} == (
            CifarFs.expected
        )
        for parts in listing.values():
            images = parts[3].read()
            assert images.shape == (600, 32, 32, 3)
            assert np.all(images[:, 1:] == names.index(parts[3].name))
            assert images[:, 0, 0, 0].tolist() == [0] * 500 + [1] * 100
    assert len(source.digest(tmp_path, source.locate(place))) == 64


def test_altered_official_files_are_refused(official):
    with (
        pytest.raises(BenchError, match="not the official CIFAR-100"),
        CifarFs().contents(official),
    ):
        pass


def test_damaged_official_archive_is_refused(tmp_path):
    archive = tmp_path / "cifar-100-python.tar.gz"
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(BenchError, match="not a complete tar"), CifarFs().contents(archive):
        pass


@pytest.mark.realdata
def test_real_zip_has_the_classes_of_the_benchmark_and_a_class_is_read_as_stored(data_dir):
    """In one test, for the zip's own list of 60,000 images takes seconds to read."""
    source = CifarFs()
    path = source.locate(data_dir)
    with source.contents(path) as listing:
        assert {split: [p.name for p in parts] for split, parts in listing.items()} == (
            official_split()
        )
        (part,) = (p for p in listing["test"] if p.name == "whale")
        images = part.read()
    with zipfile.ZipFile(path) as archive:
        members = sorted(m for m in archive.namelist() if m.startswith("test/whale/"))
        for index in (0, 49, 50, 599):
            image = Image.open(io.BytesIO(archive.read(members[index])))
            np.testing.assert_array_equal(images[index], np.asarray(image))
    assert len(np.unique(images.reshape(600, -1), axis=0)) > 590


@pytest.mark.realdata
@pytest.mark.faults
def test_every_image_of_the_real_zip_is_as_published(data_dir, tmp_path):
    findings = verify(CifarFs(), CifarFs().locate(data_dir), tmp_path)
    assert {finding.level for finding in findings} <= {"ok", "note"}
