"""Downloads with pooch: a file gets its name only after its digest was checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from bench.data.base import DatasetSource, Download
from bench.errors import BenchError
from bench.results.files import sync_folder

_CHUNK = 1 << 20
_TIMEOUT = 60
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<head")
_BY_HAND = "try again, or fetch it by hand"

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
            another file than the published one; or the folder cannot be written.
    """
    pooch.get_logger().setLevel("WARNING")
    receive = _Receiver(download, progress)
    try:
        pooch.retrieve(
            download.url,
            download.digest,
            target.name,
            target.parent,
            downloader=receive,  # pyright: ignore[reportArgumentType]  # see `_Receiver`
        )
        target.chmod(0o644)
        sync_folder(target.parent)
    except requests.RequestException as error:
        raise BenchError(
            f"{download.url} could not be downloaded ({_line(error)}); {_BY_HAND}"
        ) from None
    except OSError as error:
        raise BenchError(
            f"'{target.parent}' is not writable ({_line(error)}); name another folder with --data"
        ) from None
    except ValueError as error:
        raise BenchError(
            f"{download.url} gave a file that is not the published one; {_BY_HAND} ({_line(error)})"
        ) from None
    return target


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Receiver:
    """A downloader of pooch that closes its connection, refuses web pages and reports progress.

    Pooch documents any such callable, and annotates it more narrowly.
    """

    def __init__(self, download: Download, report: Progress | None) -> None:
        self._download, self._report = download, report

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Write what the address gives to a file, down to the disk."""
        headers = {"Accept-Encoding": "identity"}
        with (
            requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as answer,
            Path(output_file).open("w+b") as file,
        ):
            answer.raise_for_status()
            total = int(answer.headers.get("Content-Length", 0))
            for part in answer.iter_content(_CHUNK):
                file.write(part)
                if self._report:
                    self._report(file.tell(), total, self._download.file)
            file.seek(0)
            if file.read(64).lstrip().lower().startswith(_PAGE_STARTS):
                raise BenchError(
                    f"{url} answered with a web page, not with {self._download.file}; open it in a "
                    "browser and fetch the file by hand"
                )
            file.flush()
            os.fsync(file.fileno())
