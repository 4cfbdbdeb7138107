"""Finding all records below a folder; unreadable ones are left out and reported."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.errors import BenchError
from bench.results.store import ARTIFACTS, CONFIG, DONE, RECORD, StoredRecord, open_record


class RecordWarning(UserWarning):
    """A record was left out, or not understood in full."""


class Reading:
    """What reading records found: unreadable ones and unknown fields, each once."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._unknown: dict[Path, tuple[str, ...]] = {}

    def leave_out(self, line: str) -> None:
        """Note a record that was left out, and why."""
        if line not in self.left_out:
            self.left_out.append(line)

    def note(self, stored: StoredRecord) -> None:
        """Note the fields of a record that were left out."""
        for problem in stored.unreadable.values():
            self.leave_out(f"{stored.folder}: {problem}; the record is used without it")
        if stored.unknown:
            self._unknown[stored.folder.resolve()] = stored.unknown

    def lines(self) -> list[str]:
        """Return one line for each thing that was left out, and one for all unknown fields."""
        found = [f"left out: {line}" for line in self.left_out]
        if self._unknown:
            names = sorted({name for unknown in self._unknown.values() for name in unknown})
            found.append(
                f"{len(self._unknown)} records have fields that this version does not know: "
                f"{', '.join(names)}; they are ignored"
            )
        return found


@contextlib.contextmanager
def reading_told(tell: Callable[[str], object]) -> Iterator[Reading]:
    """Give a `Reading`, and pass its lines on at the end, also after an error."""
    reading = Reading()
    try:
        yield reading
    finally:
        for line in reading.lines():
            tell(line)


def _warn(line: str) -> None:
    warnings.warn(line, RecordWarning, stacklevel=5)


def find_records(root: Path, reading: Reading | None = None) -> list[StoredRecord]:
    """Read every record below a folder: finished cells of a runs folder, and stored results.

    Links are followed. Hidden folders are passed over, and so are the copies in the MLflow store's
    folder of artifacts.

    Args:
        root: the folder.
        reading: collects what is left out; None warns of it (`RecordWarning`).

    Raises:
        BenchError: there is no such folder.
    """
    if reading is None:
        with reading_told(_warn) as reading:
            return find_records(root, reading)
    if not root.is_dir():
        raise BenchError(f"'{root}' is not a folder; name the folder of runs, as in --runs DIR")

    def unreachable(error: OSError) -> None:
        reading.leave_out(f"{error.filename}: {error.strerror}; make it readable")

    found = []
    for folder in sorted(cell_folders(root, unreachable)):
        try:
            stored = open_record(folder)
        except BenchError as error:
            reading.leave_out(str(error))
            continue
        reading.note(stored)
        found.append(stored)
    return found


def holds_cells(root: Path) -> bool:
    """Tell whether there is a cell below a folder, readable or not."""
    return any(True for _ in cell_folders(root))


def cell_folders(
    root: Path, unreachable: Callable[[OSError], None] = lambda error: None
) -> Iterator[Path]:
    """Yield the folders of cells below a folder, each once however many links lead to it.

    Args:
        root: the folder.
        unreachable: told of each folder that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for name, inner, files in os.walk(root, onerror=unreachable, followlinks=True):
        folder = Path(name)
        try:
            state = folder.stat()
        except OSError as error:
            unreachable(error)
            continue
        if (state.st_dev, state.st_ino) in seen:
            inner.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        inner[:] = [one for one in inner if one[0] != "." and one != ARTIFACTS]
        inner.sort(key=lambda one: ((folder / one).is_symlink(), one))
        if RECORD in files or {DONE, CONFIG} <= set(files):
            yield folder
