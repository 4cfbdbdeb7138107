"""Records in one file: packed byte for byte alike everywhere, and checked without being unpacked.

A file holds `MANIFEST.json` and the files that it names, sorted by name, not compressed, with a
fixed date and mode: the same records give the same bytes on every machine.
"""

from __future__ import annotations

import errno
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bench.data.reading.archives import is_tar, open_zip, refuse, unpack_tar
from bench.errors import BenchError
from bench.results.files import atomic_path, file_sha256
from bench.results.find import cell_folders
from bench.verify.findings import Verdict, refuse_to_go_on, refused
from bench.verify.folder import verify_folder
from bench.verify.manifest import MANIFEST, VERSION, manifest_of

DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can name."""
MODE = 0o644


def pack(files: Mapping[str, Path], target: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write files and their manifest as one zip, or as one tar where the name ends in `.tar`.

    Args:
        files: their paths by their names inside.
        target: the file; complete or absent.
        texts: further files by name, which no digest is kept of.
    """
    if target.suffix not in (".zip", ".tar"):
        raise BenchError(f"'{target}' ends in neither .zip nor .tar; name the file so")
    digests = {name: file_sha256(path) for name, path in sorted(files.items())}
    manifest = json.dumps({"version": VERSION, "files": digests}, indent=1) + "\n"
    given = {name: text.encode() for name, text in {**(texts or {}), MANIFEST: manifest}.items()}
    write = _write_zip if target.suffix == ".zip" else _write_tar
    with atomic_path(target) as temporary:
        write(temporary, files, given)


def _write_zip(path: Path, files: Mapping[str, Path], given: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted({*files, *given}):
            info = zipfile.ZipInfo(name, DATE)
            info.external_attr = MODE << 16
            info.create_system = 3
            archive.writestr(info, given[name] if name in given else files[name].read_bytes())


def _write_tar(path: Path, files: Mapping[str, Path], given: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted({*files, *given}):
            content = given[name] if name in given else files[name].read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), MODE
            archive.addfile(info, io.BytesIO(content))


def archive(runs: Path, target: Path) -> int:
    """Check a folder of records and pack every file of its cells; return how many files.

    Raises:
        BenchError: a record is refused, or there is none.
    """
    refuse_to_go_on(verify_folder(runs))
    names = manifest_of(runs)
    pack({name: runs / name for name in names}, target)
    return len(names)


def unpack(path: Path, folder: Path) -> None:
    """Write the content of a packed file below an empty folder, each member checked.

    Raises:
        BenchError: it is no zip or tar, or holds what may not be unpacked.
    """
    if is_tar(path):
        unpack_tar(path, folder, lambda name: True)
        return
    with open_zip(path) as (names, read):
        for name in names:
            if not name.endswith("/"):
                _write(path, folder / name, read(name))


def _write(archive: Path, target: Path, content: bytes) -> None:
    """Write a member, whose name may be that of a folder, or longer than any file's."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        refuse(archive, "one member is both a file and a folder")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        refuse(archive, f"the name of a member, {target.name[:20]}…, is too long for a file")


def verify_path(
    path: Path, submission: bool = False, against: Path | None = None, listed: bool = True
) -> Verdict:
    """Check a folder of records, or a packed file of some; see `verify_folder`.

    Raises:
        BenchError: there is no such folder or file, or no record in it.
    """
    if not path.is_file():
        return verify_folder(path, submission, against, listed)
    with tempfile.TemporaryDirectory(prefix="purer-bench-") as name:
        root = Path(name).resolve()
        unpack(path, root)
        if not any(cell_folders(root)):
            raise BenchError(f"there is no record in '{path}'; name a file of bench submit")
        verdict = verify_folder(root, submission, against)
        if not (root / MANIFEST).exists():
            verdict.findings.append(refused("manifest", f"it holds no {MANIFEST}"))
        for cell in verdict.cells:
            cell.folder = path / cell.folder.relative_to(root)
        verdict.root = path
    return verdict
