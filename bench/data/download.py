"""Downloads go to a temporary name, are checked by digest, and only then get their own name."""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bench.data.base import DatasetSource, Download
from bench.data.verify import digest_of
from bench.errors import BenchError
from bench.results.files import sync_folder

_CHUNK = 1 << 20
_TIMEOUT = 60
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<head")

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all (0: not said), and the file's name."""


def fetch_missing(
    source: DatasetSource, data_dir: Path, progress: Progress | None = None
) -> list[Path]:
    """Download the files of a data set that the data folder lacks, and return them.

    Raises:
        BenchError: the authors offer no download, or one failed; see `fetch`.
    """
    if not source.downloads:
        raise BenchError(
            f"data set '{source.name}' cannot be downloaded by itself; {source.how_to_get}"
        )
    wanted = [d for d in source.downloads if not (data_dir / d.file).exists()]
    return [fetch(download, data_dir / download.file, progress) for download in wanted]


def fetch(download: Download, target: Path, progress: Progress | None = None) -> Path:
    """Download one file; the target is complete and of the published digest, or absent.

    Raises:
        BenchError: the address does not answer, breaks off, answers with a web page, or gives
            another file than the published one.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise BenchError(
            f"'{target.parent}' is not writable ({error.strerror}); name another folder with --data"
        ) from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _receive(download, file, progress)
            file.flush()
            os.fsync(file.fileno())
        found = digest_of(temporary, download.digest)
        if found != download.digest:
            raise BenchError(
                f"{download.url} gave a file with {found}, published is {download.digest}; it was "
                "thrown away: try again, or fetch it by hand"
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def _receive(download: Download, file: BinaryIO, progress: Progress | None) -> None:
    try:
        with urllib.request.urlopen(download.url, timeout=_TIMEOUT) as answer:
            start = answer.read(64)
            if start.lstrip().lower().startswith(_PAGE_STARTS):
                raise BenchError(
                    f"{download.url} answered with a web page, not with {download.file}; open it "
                    "in a browser and fetch the file by hand"
                )
            total = int(answer.headers.get("Content-Length") or 0)
            file.write(start)
            _copy(answer, file, len(start), total, download, progress)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or repr(error)).split())
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise BenchError(
            f"{download.url} could not be downloaded ({reason}); try again, or fetch it by hand"
        ) from None


def _copy(
    answer: BinaryIO,
    file: BinaryIO,
    done: int,
    total: int,
    download: Download,
    progress: Progress | None,
) -> None:
    while block := answer.read(_CHUNK):
        file.write(block)
        done += len(block)
        if progress is not None:
            progress(done, total, download.file)
    if total and done != total:
        raise BenchError(
            f"{download.url} broke off after {done} of {total} bytes; try again, or fetch it by "
            "hand"
        )
