"""Downloads with pooch: a file gets its name only after its digest was checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pooch
from requests import RequestException

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
    except RequestException as error:
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
    """A downloader of pooch that refuses web pages, and the progress bar that it draws on.

    Pooch documents both as any such object, and annotates them more narrowly.
    """

    def __init__(self, download: Download, report: Progress | None) -> None:
        self._download, self._report = download, report
        self.total = self._done = 0

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Write what the address gives to a file, down to the disk."""
        http = pooch.HTTPDownloader(
            progressbar=self if self._report else False,  # pyright: ignore[reportArgumentType]
            chunk_size=_CHUNK,
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity"},
        )
        http(url, output_file, None)
        with Path(output_file).open("rb+") as file:
            if file.read(64).lstrip().lower().startswith(_PAGE_STARTS):
                raise BenchError(
                    f"{url} answered with a web page, not with {self._download.file}; open it in a "
                    "browser and fetch the file by hand"
                )
            os.fsync(file.fileno())

    def update(self, n: int) -> None:
        """Report so many more bytes; of the last block pooch knows no exact number."""
        self._done += n
        done = min(self._done, self.total) if self.total else self._done
        if self._report:
            self._report(done, self.total, self._download.file)

    def reset(self) -> None:
        """Start again from 0, as pooch does before it reports the whole file at the end."""
        self._done = 0

    def close(self) -> None:
        """Do nothing: the report has said all."""
