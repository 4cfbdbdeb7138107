"""Files that are complete or absent; canonical JSON, digests, parquet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray
    from pyarrow.parquet import ParquetFile


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


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; on success fsync it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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


def remember_json(path: Path, value: object) -> None:
    """Write JSON that only saves work the next time; where it cannot be written, nothing is lost.

    So a cache that others may only read serves them.
    """
    with contextlib.suppress(OSError):
        write_json(path, value)


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
