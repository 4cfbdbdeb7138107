"""Files that are complete or absent; canonical JSON, digests, parquet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray
    from pyarrow.parquet import ParquetFile


TEMPORARY = ".tmp"
"""Ending of the names under which files are written, before they get their own."""
ABANDONED = 24 * 3600.0
"""Seconds after which a temporary file of another machine's is taken for left over."""
CHECKSUM = "checksum"


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_hash(value: object) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> str:
    """Return a file's size and modification time, which tell at no cost that it was written."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; on success fsync it and rename it to `path`.

    The file's mode follows the umask. What killed processes left of earlier writes of this file is
    removed.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        temporary = _temporary(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def _temporary(path: Path) -> Path:
    """Make an empty file whose name says which process writes it."""
    writer = f"{os.getpid()}.{secrets.token_hex(4)}.{_host()}"
    temporary = path.with_name(f".{path.name}.{writer}{TEMPORARY}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _remove_left_over(path: Path) -> None:
    """Remove temporary files of this file whose writer is gone.

    Of a writer on another machine that is known only by the time.
    """
    prefix = f".{path.name}."
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):  # noqa: PTH208  no Path for each of many files
            if name.startswith(prefix) and name.endswith(TEMPORARY):
                left = path.with_name(name)
                pid, _, host = name[len(prefix) : -len(TEMPORARY)].split(".", 2)
                if not _is_there(int(pid)) if host == _host() else _age(left) > ABANDONED:
                    left.unlink(missing_ok=True)


def _is_there(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _host() -> str:
    return socket.gethostname().replace("/", "_")


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file that is either complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON that is either complete or absent."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that holds the digest of its own content, for `read_checked`."""
    write_json(path, {**value, CHECKSUM: content_hash(value)})


def read_checked(path: Path, unsigned: bool = False) -> dict[str, Any]:
    """Return what `write_checked` wrote.

    Args:
        path: the file.
        unsigned: take a file without a digest, too, as older versions wrote it.

    Raises:
        OSError: it is missing or cannot be read.
        BenchError: it is not what was written.
    """
    try:
        value = json.loads(path.read_bytes())
        known = value.pop(CHECKSUM, None) if isinstance(value, dict) else ""
        intact = unsigned if known is None else known == content_hash(value)
    except ValueError:
        intact, value = False, {}
    if not intact:
        raise BenchError(f"{path} is damaged: it is not what was written")
    return value


def remember(path: Path, value: Mapping[str, Any]) -> None:
    """Keep what can be found out again, for `recall`; where nothing can be written, it is not."""
    with contextlib.suppress(OSError):
        write_checked(path, value)


def recall(path: Path) -> dict[str, Any]:
    """Return what `remember` kept; nothing where it is lost or damaged."""
    try:
        return read_checked(path)
    except (OSError, BenchError):
        return {}


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length as a parquet file that is either complete or absent."""
    import pyarrow
    import pyarrow.parquet

    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), temporary)


def read_parquet(path: Path, needs: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Return the columns of a parquet file as arrays.

    Args:
        path: the file.
        needs: names of columns without which it is not what the caller expects.

    Raises:
        BenchError: the file is missing, empty or damaged, or lacks a column.
    """
    with _parquet(path, needs) as file:
        table = file.read()
        return {field.name: _values(table[field.name], str(field.type)) for field in table.schema}


def _values(column: ChunkedArray, kind: str) -> np.ndarray:
    """Return a column as an array; pyarrow's own conversion imports pandas, a second or more."""
    if kind == "string":
        return np.asarray(column.to_pylist(), dtype=object)
    dtype = np.dtype("float16" if kind == "halffloat" else kind)
    if column.null_count or kind == "bool":  # bits are packed, and nulls have no value
        return np.asarray(column.to_pylist(), dtype=dtype)
    parts = [
        np.frombuffer(one.buffers()[1], dtype)[one.offset : one.offset + len(one)]
        for one in column.chunks
        if len(one)
    ]
    return np.concatenate([*parts, np.empty(0, dtype)])


def described_parquet(path: Path) -> tuple[int, dict[str, str]]:
    """Return the rows of a parquet file and the types of its columns, from its description alone.

    Raises:
        BenchError: the file is missing, empty or damaged.
    """
    with _parquet(path, ()) as file:
        return file.metadata.num_rows, {one.name: str(one.type) for one in file.schema_arrow}


def check_parquet(path: Path, needs: Iterable[str]) -> None:
    """Raise where `read_parquet` would, from the file's description alone; reads no values."""
    with _parquet(path, needs):
        pass


@contextlib.contextmanager
def _parquet(path: Path, needs: Iterable[str]) -> Iterator[ParquetFile]:
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if lacking := set(needs) - set(file.schema_arrow.names):
                raise BenchError(f"{path.name} has no column {', '.join(sorted(lacking))}")
            yield file
    except BenchError:
        raise
    except FileNotFoundError:
        raise BenchError(f"{path.name} is missing") from None
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"{path.name} is not a readable table ({reason})") from None
