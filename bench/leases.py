"""Leases: who works on what, among all processes, of one machine or many, that share a folder.

A lease is a small file that names its holder, and since when it works on what. It is made in one
step that only one process can win, so no file system needs to know locks. The holder touches the
file every `RENEW_EVERY` seconds. A lease counts no longer

- if its holder's process is gone, which is seen at once on the holder's machine;
- from another machine, once nobody has touched it for `STALE_AFTER` seconds by the clock of the
  process that looks: the clocks of two machines are never compared.

Only a process that writes takes one; what is finished is read without.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bench.processes import holder, this_process

RENEW_EVERY = 15.0
"""Seconds between two touches of a lease by its holder."""
STALE_AFTER = 120.0
"""Seconds without a touch after which a lease that cannot be asked for counts no longer."""
LOOK_EVERY = 1.0
"""Seconds between two looks at a lease that another process holds."""
_TRIES = 20

T = TypeVar("T")
clock = time.monotonic
_sightings: dict[Path, tuple[Any, float]] = {}
"""When this process first saw each lease of another machine as it is."""


class Busy(Exception):
    """Another process works on this.

    Args:
        path: of its lease.
        what: this process wanted it for, in words.
        facts: what the lease says of its holder; empty where it cannot be read.
    """

    def __init__(self, path: Path, what: str, facts: Mapping[str, Any]) -> None:
        super().__init__(path, what, facts)
        self.path, self.what, self.facts = path, what, dict(facts)

    def __str__(self) -> str:
        """Return who works on what, and since when."""
        if not self.facts:
            return f"another process works on {self.what}"
        since = datetime.datetime.fromtimestamp(self.facts["since"]).strftime("%Y-%m-%d %H:%M:%S")
        who = f"process {self.facts['pid']} on {self.facts['host']}"
        return f"{who} works on {self.facts['what']} since {since}"

    @property
    def is_held(self) -> bool:
        """Whether somebody still works on it."""
        found = _look(self.path)
        return found is not None and not _is_stale(self.path, found)


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        facts = {**this_process(), "what": what, "since": time.time(), "token": uuid.uuid4().hex}
        self._text = json.dumps(facts)
        self._ended = threading.Event()

    def take(self) -> None:
        """Take the lease.

        Raises:
            Busy: another process holds it.
        """
        found: str | None = ""
        for _ in range(_TRIES):
            if _create(self.path, self._text):
                threading.Thread(target=self._renew, daemon=True).start()
                return
            found = _look(self.path)
            if found is not None and not (_is_stale(self.path, found) and _clear(self.path, found)):
                break
        raise Busy(self.path, self.what, _facts(found or ""))

    def check(self) -> None:
        """Raise where another process took the lease over, as this one had not been heard of.

        Raises:
            Busy: it did.
        """
        if (found := _look(self.path)) is None or _text(found) != self._text:
            raise Busy(self.path, self.what, _facts(found or ""))

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        with contextlib.suppress(OSError, Busy):
            self.check()
            self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_EVERY):
            try:
                self.check()
                os.utime(self.path)
            except Busy:
                return
            except OSError:  # a shared folder that is away may come back
                continue


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[Lease]:
    """Hold the lease of a path during the block.

    Args:
        path: of the lease; its folder must be there.
        what: the work, in words, for those who meet it.

    Raises:
        Busy: another process holds it.
    """
    lease = Lease(path, what)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def waiting(path: Path, what: str, check: Callable[[], object] = lambda: None) -> Iterator[Lease]:
    """Hold the lease of a path during the block, once others have given it back.

    For short work only: who waits here does nothing else.

    Args:
        path: of the lease; its folder must be there.
        what: the work, in words.
        check: called while it waits; may raise.
    """
    lease = Lease(path, what)
    patiently(lease.take, check)
    try:
        yield lease
    finally:
        lease.release()


def patiently(
    work: Callable[[], T],
    check: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda line: None,
) -> T:
    """Return what some work returns; where another process has it, wait and try again.

    Args:
        work: may raise `Busy`.
        check: called while it waits; may raise.
        say: gets a line each time that another holder is waited for.
    """
    said = ""
    while True:
        try:
            return work()
        except Busy as busy:
            if str(busy) != said:
                said = str(busy)
                say(f"waiting: {said}")
            while busy.is_held:
                check()
                time.sleep(LOOK_EVERY)


def _create(path: Path, text: str) -> bool:
    """Make a lease; False where there is one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _look(path: Path) -> str | None:
    """Return what a lease says, and when it was last touched; None where there is none.

    Opened, not only looked at: a network file system asks its server then.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return f"{file.read()}\n{os.fstat(file.fileno()).st_mtime_ns}"
    except FileNotFoundError:
        return None


def _text(found: str) -> str:
    return found.rpartition("\n")[0]


def _facts(found: str) -> dict[str, Any]:
    """Return what a lease says of its holder; nothing where it is torn."""
    try:
        facts = json.loads(_text(found))
        return facts if {"host", "pid", "process_started", "what", "since"} <= set(facts) else {}
    except (ValueError, TypeError):
        return {}


def _is_stale(path: Path, found: str) -> bool:
    """Tell whether a lease counts no longer."""
    fate = holder(facts) if (facts := _facts(found)) else "elsewhere"
    if fate != "elsewhere":
        return fate == "gone"
    seen, since = _sightings.get(path, (None, 0.0))
    if seen != found:
        _sightings[path] = found, clock()
        return False
    return clock() - since > STALE_AFTER


def _clear(path: Path, found: str) -> bool:
    """Remove a lease that counts no longer, and no other; tell whether it is away.

    Those who do so exclude one another by a second file. Its holder may die as well: then it is
    judged as a lease is.
    """
    guard = path.with_name(f"{path.name}.clearing")
    if not _create(guard, json.dumps({**this_process(), "what": "clearing", "since": time.time()})):
        if (other := _look(guard)) is not None and _is_stale(guard, other):
            guard.unlink(missing_ok=True)
        return False
    try:
        if _look(path) == found:
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)
    return True
