"""The MLflow store of a runs folder: where it is, how its file is made, which records it lacks.

Nothing here needs mlflow, so that a run that has nothing to write does not load it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from bench.errors import first_line
from bench.leases import waiting
from bench.results.files import file_sha256, sync_folder, write_text
from bench.results.mlflow_view import page
from bench.results.store import DONE, RECORD, StoredRecord

MARK = ".ingested"
"""The file of a cell that says which version of its record which store holds."""
DATABASE = "mlflow.db"
EXPERIMENT = "purer-bench"
VERSION = "record"
"""The tag of a run that holds the digest of the record that it shows; it shows all once closed."""
FOLDER_ID = ".folder-id"
_SQLITE = "sqlite:///"
_T = TypeVar("_T")
_SIDE_FILES = ("-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Store:
    """The store that shows a runs folder.

    Args:
        runs: the folder of runs.
        given: the address that the user gave; None is the file `mlflow.db` in that folder.
    """

    runs: Path
    given: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether the store holds this folder's runs only."""
        return self.given is None

    @property
    def is_server(self) -> bool:
        """Whether a server is asked."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def uri(self) -> str:
        """The address as MLflow takes it."""
        return self.given or _address(self.runs.resolve() / DATABASE)

    @property
    def shown(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.uri)
        if parts.password is None:
            return self.uri
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def database(self) -> Path | None:
        """The SQLite file that holds the store; None where something else does."""
        path = self.uri.removeprefix(_SQLITE).partition("?")[0]
        return Path(unquote(path)) if self.uri.startswith(_SQLITE) else None

    def alone(self) -> AbstractContextManager[object]:
        """Keep other processes from writing during the block, also those of another runs folder."""
        folder = self.runs if self.database is None else self.database.parent
        folder.mkdir(parents=True, exist_ok=True)
        return waiting(folder / ".mlflow.lease", "the MLflow store")

    def folder_tags(self) -> dict[str, str]:
        """Return the tag by which a store of many folders knows the runs of this one."""
        if self.is_own:
            return {}
        path = self.runs / FOLDER_ID
        if not path.exists():
            write_text(path, f"{uuid.uuid4().hex}\n")
        return {"folder": path.read_text(encoding="utf-8").strip()}

    def folder_condition(self) -> str:
        """Return the end of a condition of MLflow that only runs of this folder meet."""
        return "".join(f" and tags.{tag} = '{one}'" for tag, one in self.folder_tags().items())

    def ways_in(self) -> list[str]:
        """Return how to look at the store: the command that serves it, and the page to open."""
        if self.is_server:
            return [self.shown]
        program = Path(sys.executable).with_name("mlflow")
        if program.is_relative_to(Path.cwd()):
            program = program.relative_to(Path.cwd())
        command = f"{program} ui --backend-store-uri {self.uri} --workers 1"
        number = _experiment(self.database) if self.database is not None else None
        return [command, *([page("http://127.0.0.1:5000", number)] if number else [])]

    @property
    def ingest_command(self) -> str:
        """The command that writes what the store lacks."""
        address = [] if self.is_own else ["--mlflow-uri", self.shown]
        return shlex.join(["bench", "ingest", "--runs", str(self.runs), *address])

    def reason(self, error: BaseException) -> str:
        """Return why something failed, in few words; of a server, what the network says."""
        while self.is_server and (cause := error.__cause__ or error.__context__) is not None:
            error = cause
        return first_line(error)

    def cannot_be_opened(self, error: Exception) -> str:
        """Say why the store cannot be opened, and where it can be mended, how."""
        reason, remedy = self.reason(error), ""
        if "mlflow db upgrade" in str(error):
            reason = "another version of MLflow made it"
            remedy = f"; run mlflow db upgrade {self.shown}"
        elif self.database is not None and holds_runs(self.database) is None:
            remedy = f"; move {self.database.name} away, and it is made again"
        return f"MLflow store {self.shown} cannot be opened ({reason}){remedy}"

    def opened(self, open_at: Callable[[str], _T]) -> _T:
        """Open the store, made in one piece where it has to be made.

        That is where there is no file, or an empty one, or where the folder's own store cannot be
        opened and holds no run: a kill left it half-made, and nothing is lost with it.

        Args:
            open_at: opens the store of an address, and makes what it lacks.
        """
        if self.database is None:
            return open_at(self.uri)
        with _nothing_beside(Path(self.uri.removeprefix(_SQLITE)).parent, self.database.parent):
            return self._opened(self.database, open_at)

    def _opened(self, database: Path, open_at: Callable[[str], _T]) -> _T:
        if not _size(database):
            self._make(database, open_at)
        try:
            return open_at(self.uri)
        except Exception:
            if not self.is_own or holds_runs(database) is not False:
                raise
        self._make(database, open_at)
        # Spelt otherwise: MLflow keeps connections to the older file under the address.
        return open_at(f"{_address(database.parent)}/./{database.name}")

    def _make(self, database: Path, open_at: Callable[[str], object]) -> None:
        """Make the store beside, then rename: a kill leaves it as it was, or complete.

        What an earlier kill left beside it is deleted.
        """
        database.parent.mkdir(parents=True, exist_ok=True)
        for left in database.parent.glob(f".{database.name}.*"):
            left.unlink()
        new = database.with_name(f".{database.name}.{os.getpid()}-{time.time_ns()}")
        try:
            open_at(_address(new))
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            remove_side_files(database)
            new.replace(database)
            sync_folder(database.parent)
        finally:
            new.unlink(missing_ok=True)
            remove_side_files(new)

    def keep_artifacts(self, known: str, place: str) -> None:
        """Have the runs of a folder that was moved, with its store, find their artifacts there.

        Args:
            known: the address of its artifacts, as the store says.
            place: where they are.
        """
        if not self.is_own or self.database is None or known == place:
            return
        connection = sqlite3.connect(self.database, timeout=20)
        with contextlib.closing(connection), connection:
            new = "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?"
            connection.execute(new, (place, known))
            new = "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
            below = (f"{place}/", len(known) + 2, len(known) + 1, f"{known}/")
            connection.execute(f"{new} WHERE substr(artifact_uri, 1, ?) = ?", below)

    def remove(self) -> None:
        """Delete the store's file, where it is one, so that the next writer makes it again."""
        if self.database is not None:
            self.database.unlink(missing_ok=True)
            remove_side_files(self.database)

    def pending(self, stored: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Return the records that the store does not hold yet, as the files of cells say."""
        if self.database is not None and not holds_runs(self.database):
            return list(stored)
        return [one for one in stored if self._mark(one) != _read_mark(one)]

    def mark(self, stored: StoredRecord) -> None:
        """Note that the store holds a record; of one without a note the store is asked."""
        (stored.folder / MARK).write_text(self._mark(stored) + "\n", encoding="utf-8")

    def _mark(self, stored: StoredRecord) -> str:
        address = "" if self.is_own else f" {hashlib.sha256(self.uri.encode()).hexdigest()[:16]}"
        return f"{version_of(stored)} in{address or ' the folder'}"


def version_of(stored: StoredRecord) -> str:
    """Return the digest of a record with all its files."""
    path = stored.folder / DONE
    return file_sha256(path if path.exists() else stored.folder / RECORD)


def holds_runs(database: Path) -> bool | None:
    """Tell whether an SQLite file holds a run of MLflow; None: it is damaged, or another's file.

    A file that is missing, empty, or was left half-made by a kill, holds none.
    """
    if not _size(database):
        return False
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master").fetchall()
            names = {name for (name,) in rows}
            if "runs" not in names:
                return None if names and "experiments" not in names else False
            return connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return None


def _experiment(database: Path) -> str | None:
    """Return the number of our experiment, where the store has one."""
    query = "SELECT experiment_id FROM experiments WHERE name = ?"
    if not _size(database):
        return None
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            found = connection.execute(query, (EXPERIMENT,)).fetchone()
    except sqlite3.Error:
        return None
    return str(found[0]) if found else None


def remove_side_files(database: Path) -> None:
    """Delete what SQLite keeps beside a file, which would be applied to a new one of its name."""
    for suffix in _SIDE_FILES:
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _address(path: Path) -> str:
    """Return the address of an SQLite file, in which `%` and `?` mean something else."""
    return _SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


@contextlib.contextmanager
def _nothing_beside(spelt: Path, folder: Path) -> Iterator[None]:
    """Remove what MLflow makes: the folder that an address names while `%` and `?` are quoted."""
    made = spelt != folder and not spelt.exists()
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not there, or not empty
                os.removedirs(spelt)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_mark(stored: StoredRecord) -> str | None:
    path = stored.folder / MARK
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
