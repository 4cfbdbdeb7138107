"""Archives of the wrong kind: refused in one line, nothing outside the target touched."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench.data.reading import archives
from bench.data.reading.archives import open_zip, unpack_tar
from bench.errors import BenchError

GIGABYTES = 10 * 2**30
NOISE = random.Random(0).randbytes(4096)


def tar_of(path: Path, *members: tarfile.TarInfo | str, compressed: bool = True) -> Path:
    with tarfile.open(path, "w:gz" if compressed else "w") as archive:
        for member in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = 4
            content = io.BytesIO(b"data" if member.isreg() else b"")
            archive.addfile(member, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_of(path: Path, *members: zipfile.ZipInfo | str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"data")
    return path


def zip_special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tar_header_bomb(path: Path) -> Path:
    """A tar whose extended header claims ten gigabytes, which a reader would take in whole."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, GIGABYTES
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1 << 20))
    return path


def tar_member_bomb(path: Path) -> Path:
    """A tar whose one member claims ten gigabytes."""
    member = tarfile.TarInfo("train/a/0.png")
    member.size = GIGABYTES
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1 << 20))
    return path


def tar_total_bomb(path: Path) -> Path:
    """A tar of members that are each allowed, and together are not."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number in range(40):
            member = tarfile.TarInfo(f"unwanted/{number}.bin")
            member.size = 4 << 20
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            if number < 20:
                file.write(bytes(member.size))
    return path


def zip_bomb(path: Path, name: str = "train/a/0.png") -> Path:
    """A zip whose directory says that a member unpacks to ten gigabytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"data")
        archive.filelist[0].file_size = GIGABYTES
    return path


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def random_tar(path: Path, compressed: bool = True) -> Path:
    member = tarfile.TarInfo("train/a/0.png")
    member.size = 4096
    with tarfile.open(path, "w:gz" if compressed else "w") as archive:
        archive.addfile(member, io.BytesIO(NOISE))
    return path


def damaged_tar(path: Path, damage: str, mode: str) -> Path:
    """A tar of three members, of 1,024 bytes each, whose second header is cut, damaged or zero."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("train/a/0.png", "train/a/1.png", "train/a/2.png"):
            member = tarfile.TarInfo(name)
            member.size = 512
            archive.addfile(member, io.BytesIO(NOISE[:512]))
    data = bytearray(content.getvalue())
    if damage == "cut inside":
        data = data[: 1024 + 200]
    elif damage == "cut before":
        data = data[:1024]
    elif damage == "cut at the end":
        data = data[: 3 * 1024]
    elif damage == "flipped":
        data[1024 + 3] ^= 0xFF
    else:
        data[1024:1536] = bytes(512)
    opener = {"gz": gzip.open, "xz": lzma.open, "plain": open}[mode]
    with opener(path, "wb") as file:
        file.write(data)
    return path


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def page(path: Path) -> Path:
    path.write_text("<!DOCTYPE html><title>Quota exceeded</title>\n")
    return path


TARS = {
    "absolute path": (lambda p: tar_of(p, "/etc/passwd"), "absolute path"),
    "parent": (lambda p: tar_of(p, "train/../../x.png"), "may lead outside"),
    "windows parent": (lambda p: tar_of(p, "..\\x.png"), "may lead outside"),
    "drive": (lambda p: tar_of(p, "C:/x.png"), "absolute path"),
    "symlink": (lambda p: tar_of(p, special("a.png", tarfile.SYMTYPE, "/etc/passwd")), "symbolic"),
    "hard link": (lambda p: tar_of(p, "b.png", special("a.png", tarfile.LNKTYPE, "b.png")), "hard"),
    "device": (lambda p: tar_of(p, special("a.png", tarfile.CHRTYPE)), "device"),
    "pipe": (lambda p: tar_of(p, special("a.png", tarfile.FIFOTYPE)), "pipe"),
    "duplicate": (lambda p: tar_of(p, "train/a/0.png", "train/./a/0.png"), "twice"),
    "file and folder": (lambda p: tar_of(p, "a.png", "a.png/b.png"), "both a file and a folder"),
    "header bomb": (tar_header_bomb, "claims 10737418240 bytes"),
    "member bomb": (tar_member_bomb, "unpacks to 10737418240 bytes"),
    "bomb of many": (tar_total_bomb, "unpacks to over"),
    "truncated": (lambda p: truncated(random_tar(p)), "not a complete tar"),
    "truncated plain": (lambda p: cut(random_tar(p, False), 2000), "not a complete tar"),
    "page": (page, "web page"),
    "empty": (lambda p: cut(page(p), 0), "not a complete tar"),
}
ZIPS = {
    "absolute path": (lambda p: zip_of(p, "/etc/x.png"), "absolute path"),
    "parent": (lambda p: zip_of(p, "train/../../x.png"), "may lead outside"),
    "symlink": (lambda p: zip_of(p, zip_special("a.png", stat.S_IFLNK | 0o777)), "symbolic link"),
    "device": (lambda p: zip_of(p, zip_special("a.png", stat.S_IFCHR | 0o666)), "device"),
    "bomb": (zip_bomb, "unpacks to 10737418240 bytes"),
    "truncated": (lambda p: cut(zip_of(p, *map(str, range(9))), 300), "not a complete zip"),
    "page": (page, "web page"),
    "empty": (lambda p: cut(page(p), 0), "not a complete zip"),
}


def snapshot(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("case", TARS)
def test_tars_are_refused(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = TARS[case]
    monkeypatch.setattr(archives, "LEAST_TOTAL", 64 << 20)  # which only many members go over
    path = make(tmp_path / "set.tar.gz")
    target = tmp_path / "place" / "target"
    target.mkdir(parents=True)
    before = snapshot(tmp_path)
    with pytest.raises(BenchError, match=expected) as caught:
        unpack_tar(path, target, lambda name: name.endswith(".png"))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    outside = {name for name in snapshot(tmp_path) - before if not name.startswith("place/target/")}
    assert not outside


@pytest.mark.parametrize("mode", ["plain", "gz", "xz"])
@pytest.mark.parametrize(
    "damage", ["cut inside", "cut before", "cut at the end", "flipped", "zero"]
)
def test_a_tar_with_a_lost_header_is_not_complete(tmp_path: Path, damage: str, mode: str) -> None:
    path = damaged_tar(tmp_path / "set.tar", damage, mode)
    (tmp_path / "target").mkdir()
    with pytest.raises(BenchError, match=r"not a complete tar.*(header|closing)"):
        unpack_tar(path, tmp_path / "target", lambda name: True)


def test_a_flipped_byte_in_a_compressed_tar_is_noticed(tmp_path: Path) -> None:
    plain = random_tar(tmp_path / "set.tar", compressed=False).read_bytes()
    content = bytearray(gzip.compress(plain, compresslevel=0))  # kept as it is: it still unpacks
    content[content.index(NOISE) + len(NOISE) // 2] ^= 1
    path = tmp_path / "set.tar.gz"
    path.write_bytes(content)
    (tmp_path / "target").mkdir()
    with pytest.raises(BenchError, match=r"not a complete tar.*CRC"):
        unpack_tar(path, tmp_path / "target", lambda name: True)


@pytest.mark.parametrize("case", ZIPS)
def test_zips_are_refused(tmp_path: Path, case: str) -> None:
    make, expected = ZIPS[case]
    path = make(tmp_path / "set.zip")
    before = snapshot(tmp_path)
    with pytest.raises(BenchError, match=expected) as caught, open_zip(path):
        pass
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_zip_with_a_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("train/a/0.png", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("train/a/0.png", b"two")
    with pytest.raises(BenchError, match="twice"), open_zip(tmp_path / "set.zip"):
        pass


def test_encrypted_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "set.zip", "a.png")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(BenchError, match="encrypted"), open_zip(path):
        pass


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_honest_tars_unpack_what_is_wanted(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "source"
    (source / "train" / "a").mkdir(parents=True)
    (source / "train" / "a" / "0.png").write_bytes(b"image")
    (source / "notes.txt").write_text("x")
    with tarfile.open(tmp_path / "set.tar", mode) as archive:
        archive.add(source, "set")
    target = tmp_path / "target"
    target.mkdir()
    unpack_tar(tmp_path / "set.tar", target, lambda name: name.endswith(".png"))
    files = {str(p.relative_to(target)): p for p in target.rglob("*") if p.is_file()}
    assert set(files) == {"set/train/a/0.png"}
    assert files["set/train/a/0.png"].read_bytes() == b"image"


def test_honest_zips_read_their_members(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "set.zip", "train/", "./train/0.png")
    with open_zip(path) as (members, read):
        assert members == ["train/", "train/0.png"]
        assert read("train/0.png") == b"data"


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "set.zip", "set/settings.json")
    path.write_bytes(path.read_bytes().replace(b"data", b"dada", 1))
    expected = r"member 'set/settings.json' of .*CRC"
    with open_zip(path) as (_, read), pytest.raises(BenchError, match=expected) as caught:
        read("set/settings.json")
    assert "\n" not in str(caught.value)


def test_a_large_archive_may_unpack_to_more(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "LEAST_TOTAL", 10)
    path = zip_of(tmp_path / "set.zip", *(f"{n}.png" for n in range(9)))
    with open_zip(path) as (members, _):
        assert len(members) == 9
    monkeypatch.setattr(archives, "GROWTH", 0)
    with pytest.raises(BenchError, match="over 10 bytes"), open_zip(path):
        pass
