"""Archives are read by an own allow-list: regular files with relative names, of bounded size.

One member that is anything else, and the whole archive is refused in one line.
`tarfile`'s own filters were escapable in several releases, and neither they nor `zipfile` bound
what an archive unpacks to.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

from bench.errors import BenchError

MEMBER_BYTES = 1 << 29
"""The largest member, unpacked: 512 MiB. CIFAR-100's largest has 155 MB."""
LEAST_TOTAL = 1 << 30
GROWTH = 20
"""An archive may unpack to 1 GiB, or to 20 times its own size where that is more; images grow
little."""
_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
)
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_TAR_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")


def is_tar(path: Path) -> bool:
    """Tell whether a file is named like a tar archive, compressed or not."""
    return path.name.lower().endswith(_TAR_ENDINGS)


class _AllowList:
    """Checks members one after another, in the order of the archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: set[str] = set()
        self.limit = max(LEAST_TOTAL, GROWTH * path.stat().st_size)
        self.total = 0

    def check(self, name: str, size: int, kind: str | None) -> str:
        """Return the member's clean name, or refuse the archive.

        Args:
            name: as the archive says it.
            size: bytes, unpacked.
            kind: what the member is where it is neither a regular file nor a folder, else None.
        """
        pure = PurePosixPath(name)
        if kind is not None:
            refuse(self.path, f"member '{name}' is {kind}")
        if pure.is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
            refuse(self.path, f"member '{name}' has an absolute path")
        if ".." in PureWindowsPath(name).parts or "\0" in name:
            refuse(self.path, f"member '{name}' may lead outside")
        if "\\" in name:
            refuse(self.path, f"member '{name}' has a \\ in its name, which may stand for a folder")
        clean = pure.as_posix()
        if name.endswith("/"):
            return f"{clean}/"
        if clean in self.seen:
            refuse(self.path, f"member '{clean}' is there twice")
        self.seen.add(clean)
        self.total += size
        if size > MEMBER_BYTES:
            refuse(self.path, f"member '{clean}' unpacks to {size} bytes, over {MEMBER_BYTES}")
        self.check_total(self.total)
        return clean

    def check_total(self, total: int) -> None:
        """Refuse an archive that unpacks to too much."""
        if total > self.limit:
            refuse(self.path, f"it unpacks to over {self.limit} bytes")


def refuse(path: Path, why: str) -> NoReturn:
    """Raise the one line for an archive that is not read."""
    raise BenchError(
        f"archive '{path}' is refused: {why}; download it again from its source, or unpack it "
        "yourself and name the folder"
    )


def _not_an_archive(path: Path, kind: str, error: Exception) -> NoReturn:
    with path.open("rb") as file:
        start = file.read(24)
    reason = " ".join(str(error).split())
    raise BenchError(
        f"'{path}' is not a complete {kind} (it starts with {start!r}; {reason}); download it "
        "again, and check that it is the archive and not a web page"
    ) from None


@contextmanager
def open_zip(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Open a zip: its members' names, folders ending in '/', and a function that reads one.

    Some programs of Windows write a backslash between folders; it is read as `/`.

    Raises:
        BenchError: the file is no complete zip, or a member is not on the allow-list; and from
            the function, a member is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        _not_an_archive(path, "zip", error)
    with archive:
        allowed = _AllowList(path)
        originals = {
            allowed.check(_with_slashes(info.filename), info.file_size, _zip_kind(info)): info
            for info in archive.infolist()
        }
        yield list(originals), lambda name: _read_member(path, archive, originals[name])


def _with_slashes(name: str) -> str:
    return name if "/" in name else name.replace("\\", "/")


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise BenchError(
            f"member '{info.filename}' of '{path}' is damaged ({reason}); download the archive "
            "again"
        ) from None


def _zip_kind(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 1:
        return "encrypted"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "a symbolic link"
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return "a device or pipe"
    return None


class _Bounded(io.RawIOBase):
    """A decompressed stream that gives no read and no total beyond the bounds.

    A tar's extended headers are read whole, whatever size they claim.
    """

    def __init__(self, file: io.BufferedIOBase, allowed: _AllowList) -> None:
        self._file, self._allowed = file, allowed
        self.last = b""
        """What was read last."""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MEMBER_BYTES:
            refuse(self._allowed.path, f"a header claims {size} bytes")
        self._allowed.check_total(self._file.tell() + size - MEMBER_BYTES)
        self.last = self._file.read(size)
        return self.last

    def seek(self, position: int, whence: int = 0, /) -> int:
        self._allowed.check_total(position - MEMBER_BYTES)
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()


def unpack_tar(path: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Write the wanted members of a tar, compressed or not, below an empty folder.

    Every member is checked, wanted or not; nothing is written outside the folder.

    Raises:
        BenchError: the file is no complete tar, or a member is not on the allow-list.
    """
    allowed = _AllowList(path)
    try:
        with path.open("rb") as file:
            start = file.read(6)
        opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), open)
        with opener(path, "rb") as stream:
            bounded = _Bounded(stream, allowed)
            with tarfile.open(fileobj=bounded, mode="r:") as archive:
                for member in archive:
                    name = allowed.check(member.name, member.size, _tar_kind(member))
                    if member.isreg() and wanted(name):
                        _write(archive, member, folder / name)
            _check_end(bounded)
    except (FileExistsError, NotADirectoryError):
        refuse(path, "one member is both a file and a folder")
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        _not_an_archive(path, "tar", error)


def _check_end(stream: _Bounded) -> None:
    """Raise where a tar does not close with zeros, read to the end of its compressed stream.

    `tarfile` takes a header that is cut or damaged for the end; what it read last tells.
    """
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut or damaged at a member's header")
    while block := stream.read(_CHUNK):
        if block.count(0) != len(block):
            raise tarfile.ReadError("more follows its closing block")


def _tar_kind(member: tarfile.TarInfo) -> str | None:
    if member.issym():
        return "a symbolic link"
    if member.islnk():
        return "a hard link"
    if member.isdir() or (member.isreg() and not member.issparse()):
        return None
    return "a device, pipe or sparse file"


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None, "a regular member has content"
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
