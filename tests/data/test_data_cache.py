"""Opening a data set: pixels survive, the second time reads nothing, half-built is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from bench.data import cache as decoded
from bench.data import digests
from bench.data.digests import DigestMemory
from bench.data.sources import open_data
from bench.errors import BenchError
from bench.results.files import read_checked, write_checked


def test_pixels_and_order_survive(tiny, tree, tmp_path, pixels):
    data = open_data(tiny, tmp_path / "cache", tree)
    assert list(data.splits) == ["train", "val", "test"]
    for name, classes in pixels.items():
        split = data.splits[name]
        assert split.classes == tuple(sorted(classes))
        assert len(split.images) == sum(map(len, classes.values()))
        for index, label in enumerate(split.classes):
            np.testing.assert_array_equal(split.class_images(index), classes[label])


def test_opened_data_describes_itself_and_cannot_be_written(tiny, tree, tmp_path):
    data = open_data(tiny, tmp_path / "cache", tree)
    assert (data.name, data.image_size, data.mean, data.std) == (
        "tiny",
        8,
        (0.5, 0.4, 0.3),
        (0.2, 0.3, 0.4),
    )
    assert len(data.digest) == 64
    with pytest.raises(ValueError, match="read-only"):
        data.splits["train"].images[0] = 0


def test_second_opening_decodes_nothing(tiny, tree, tmp_path, monkeypatch):
    calls = []
    first = open_data(tiny, tmp_path / "cache", tree, progress=lambda *call: calls.append(call))
    assert calls[-1] == (25, 25, "tiny test")
    assert [done for done, _, _ in calls] == sorted({done for done, _, _ in calls})

    def refuse(path):
        raise AssertionError("the source was read again")

    monkeypatch.setattr(tiny, "contents", refuse)
    again = open_data(tiny, tmp_path / "cache", tree, progress=refuse)
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.splits["val"].images, first.splits["val"].images)


def test_digest_follows_content_and_not_dates(tiny, tree, tmp_path):
    cache, source = tmp_path / "cache", tree / "tiny"
    before = tiny.digest(cache, source)
    image = source / "train" / "a" / "000.png"
    os.utime(image, ns=(1, 1))
    assert tiny.digest(cache, source) == before
    image.write_bytes((source / "train" / "a" / "001.png").read_bytes())
    changed = tiny.digest(cache, source)
    assert changed != before
    image.rename(image.with_name("900.png"))
    assert tiny.digest(cache, source) not in (before, changed)
    (source / ".hidden").write_text("not an image")
    (source / "train" / "notes.txt").write_text("not an image")
    image.with_name("900.png").unlink()
    image.write_bytes(b"")
    assert len({before, changed, tiny.digest(cache, source)}) == 3


def test_remembered_digest_reads_no_file(tiny, tree, tmp_path, monkeypatch):
    before = tiny.digest(tmp_path / "cache", tree / "tiny")

    def refuse(path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(digests, "file_sha256", refuse)
    assert tiny.digest(tmp_path / "cache", tree / "tiny") == before


@pytest.mark.parametrize("damage", ["", "[1]", '{"x": 3}'])
def test_damaged_digest_memory_costs_a_reading_only(tmp_path, damage):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    memory = DigestMemory(tmp_path)
    memory.store.write_text(damage)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert memory.file(file) == known


def test_interrupted_build_leaves_nothing(tiny, tree, tmp_path):
    bad = tree / "tiny" / "test" / "g" / "003.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    with pytest.raises(BenchError, match=r"test/g/003\.png"):
        open_data(tiny, tmp_path / "cache", tree)
    left = list((tmp_path / "cache" / "data").iterdir())
    assert left == []
    bad.write_bytes(good)
    assert len(open_data(tiny, tmp_path / "cache", tree).splits["test"].images) == 8


def test_leftovers_of_a_killed_build_are_removed(tiny, tree, tmp_path):
    name = f"tiny-{tiny.digest(tmp_path / 'cache', tree / 'tiny')[:16]}"
    stale = tmp_path / "cache" / "data" / f".{name}.abc"
    stale.mkdir(parents=True)
    (stale / "train.npy").write_bytes(b"half")
    open_data(tiny, tmp_path / "cache", tree)
    assert not stale.exists()


def test_two_that_want_the_same_data_build_it_once(tiny, tree, tmp_path, monkeypatch):
    contents, opened = tiny.contents, []

    def counted(path):
        opened.append(path)
        return contents(path)

    monkeypatch.setattr(tiny, "contents", counted)
    threads = [
        threading.Thread(target=open_data, args=(tiny, tmp_path / "cache", tree)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def _interrupt(tiny, monkeypatch, split, name):
    """Let reading one class be the moment of Ctrl-C."""
    contents = tiny.contents

    @contextmanager
    def interrupting(path):
        with contents(path) as listing:
            yield {
                part: [
                    replace(one, read=_press_ctrl_c) if (part, one.name) == (split, name) else one
                    for one in classes
                ]
                for part, classes in listing.items()
            }

    monkeypatch.setattr(tiny, "contents", interrupting)


def _press_ctrl_c():
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [("train", "a"), ("train", "c"), ("val", "d"), ("test", "g")])
def test_an_interrupted_preparation_goes_on(tiny, tree, tmp_path, pixels, monkeypatch, where):
    monkeypatch.setattr(decoded, "_EVERY", 0.0)
    with monkeypatch.context() as patch:
        _interrupt(tiny, patch, *where)
        with pytest.raises(KeyboardInterrupt):
            open_data(tiny, tmp_path / "cache", tree)
    (part,) = (tmp_path / "cache" / "data").glob(".tiny-*.part")
    with (part / f"{where[0]}.npy").open("ab") as file:
        file.write(b"half an image")
    contents, read = tiny.contents, []

    @contextmanager
    def noting(path):
        with contents(path) as listing:
            yield {
                split: [
                    replace(one, read=lambda one=one: (read.append(one.name), one.read())[1])
                    for one in classes
                ]
                for split, classes in listing.items()
            }

    monkeypatch.setattr(tiny, "contents", noting)
    data = open_data(tiny, tmp_path / "cache", tree)
    assert "".join(read) == "abcdefg"["abcdefg".index(where[1]) :] if where[1] != "g" else "g"
    for name, classes in pixels.items():
        for index, label in enumerate(data.splits[name].classes):
            np.testing.assert_array_equal(data.splits[name].class_images(index), classes[label])
    assert not list((tmp_path / "cache" / "data").glob(".tiny-*.part"))


def test_a_preparation_by_other_versions_starts_anew(tiny, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "_EVERY", 0.0)
    with monkeypatch.context() as patch:
        _interrupt(tiny, patch, "test", "f")
        with pytest.raises(KeyboardInterrupt):
            open_data(tiny, tmp_path / "cache", tree)
    (part,) = (tmp_path / "cache" / "data").glob(".tiny-*.part")
    journal = part / "journal.json"
    content = read_checked(journal)
    assert content["splits"]["train"]["classes"] == 3
    content["decoded_with"]["pillow"] = "0.1"
    write_checked(journal, content)
    (part / "train.npy").write_bytes(b"made by another version")
    assert len(open_data(tiny, tmp_path / "cache", tree).splits["train"].images) == 12


def test_classes_that_were_damaged_since_are_read_again(tiny, tree, tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(decoded, "_EVERY", 0.0)
    with monkeypatch.context() as patch:
        _interrupt(tiny, patch, "test", "f")
        with pytest.raises(KeyboardInterrupt):
            open_data(tiny, tmp_path / "cache", tree)
    (part,) = (tmp_path / "cache" / "data").glob(".tiny-*.part")
    flip(part / "train.npy")
    data = open_data(tiny, tmp_path / "cache", tree)
    for index, label in enumerate(data.splits["train"].classes):
        np.testing.assert_array_equal(
            data.splits["train"].class_images(index), pixels["train"][label]
        )


def flip(path):
    """Change one bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def decoded_folder(tmp_path):
    (folder,) = (p for p in (tmp_path / "cache" / "data").iterdir() if p.is_dir())
    return folder


@pytest.mark.parametrize("name", ["val.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "lose"])
def test_what_is_damaged_is_decoded_again(tiny, tree, tmp_path, pixels, name, damage):
    open_data(tiny, tmp_path / "cache", tree)
    path = decoded_folder(tmp_path) / name
    if damage == "flip":
        flip(path)
    elif damage == "lose":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "cut" else 0)
    assert decoded.problem(path.parent)
    data = open_data(tiny, tmp_path / "cache", tree)
    assert decoded.problem(path.parent) is None
    for index, label in enumerate(data.splits["val"].classes):
        np.testing.assert_array_equal(data.splits["val"].class_images(index), pixels["val"][label])


def test_content_is_read_only_where_a_file_was_written_or_where_asked(
    tiny, tree, tmp_path, monkeypatch
):
    open_data(tiny, tmp_path / "cache", tree)
    folder = decoded_folder(tmp_path)
    path, read = folder / "train.npy", []
    sha256 = decoded.file_sha256
    monkeypatch.setattr(decoded, "file_sha256", lambda p: (read.append(p.name), sha256(p))[1])
    assert decoded.problem(folder) is None
    assert read == []
    os.utime(path, ns=(1, 1))
    assert decoded.problem(folder) is None
    assert decoded.problem(folder) is None  # noted anew
    assert read == ["train.npy"]
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert decoded.problem(folder) is None
    assert decoded.problem(folder, deep=True) == f"{path} is damaged: it is not what was written"


def test_a_cache_that_cannot_be_written_is_read(tiny, tree, tmp_path, read_only):
    before = open_data(tiny, tmp_path / "cache", tree)
    with read_only(tmp_path / "cache"):
        again = open_data(tiny, tmp_path / "cache", tree)
    np.testing.assert_array_equal(again.splits["test"].images, before.splits["test"].images)


def test_cache_that_cannot_be_written(tiny, tree, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data").write_text("a file where a folder should be")
    with pytest.raises(BenchError, match="--cache DIR"):
        open_data(tiny, tmp_path / "cache", tree)


def test_gather_takes_the_named_images(tiny, tree, tmp_path, pixels):
    split = open_data(tiny, tmp_path / "cache", tree).splits["train"]
    classes = np.array([[2, 0], [1, 1]])
    images = np.array([[4, 2], [0, 3]])
    got = split.gather(classes, images)
    want = [[pixels["train"]["abc"[c]][i] for c, i in zip(*row)] for row in zip(classes, images)]  # noqa: B905
    np.testing.assert_array_equal(got, want)
    got[:] = 0
    assert split.images.any()


@pytest.mark.parametrize(
    ("index", "image", "message"),
    [
        (3, 0, "class index 3 is outside the 3 classes of split train"),
        (-1, 0, "class index -1"),
        (0, 3, "image 3 is outside the 3 images of class 0 of split train"),
        (1, -1, "image -1"),
    ],
)
def test_gather_refuses_what_is_not_there(tiny, tree, tmp_path, index, image, message):
    split = open_data(tiny, tmp_path / "cache", tree).splits["train"]
    with pytest.raises(BenchError, match=message):
        split.gather(np.array([0, index]), np.array([0, image]))


def test_opening_needs_no_heavy_import(tree, tmp_path):
    script = (
        "import sys; from pathlib import Path; from bench.data.sets.cifar_fs import CifarFs;"
        "from bench.data.sets.glyphs import Glyphs; import bench.data.tasks, bench.data.verify;"
        "Glyphs().digest(Path(sys.argv[1]), Glyphs().locate(None));"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'PIL.Image', 'mlflow', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
