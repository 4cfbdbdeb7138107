"""What makes something stored: plug-ins, their code, device and threads, compared with now."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.results.code import changed_files
from bench.results.record import Code

GIT_TIMEOUT = 10.0
"""Seconds that one question to git may take."""
NAMED = 3
"""Files that a line names; it counts the others."""


class Described(Protocol):
    """The names of a cell's plug-ins: a cell's configuration or a record."""

    @property
    def method(self) -> str:
        """The method's name."""
        ...

    @property
    def learner(self) -> str:
        """The learner's name."""
        ...

    @property
    def calibration(self) -> str:
        """The calibration's name."""
        ...

    @property
    def net(self) -> str:
        """The meta-model's network."""
        ...

    @property
    def architectures(self) -> Iterable[str]:
        """The networks of the pool."""
        ...

    @property
    def datasets(self) -> Iterable[str]:
        """The data sets."""
        ...

    @property
    def method_config(self) -> Mapping[str, Any]:
        """The method's configuration."""
        ...


class Traits(Protocol):
    """The class attributes of a method that decide which plug-ins its cells depend on."""

    uses_pool: ClassVar[bool]
    fit_depends_on: ClassVar[frozenset[str]]
    validates: ClassVar[bool]


@dataclass(frozen=True)
class Maker:
    """The code that makes something, the device and the number of CPU threads.

    On a CPU the number of threads decides how sums are divided, and so changes numbers.
    """

    code: Code
    threads: int
    device: str

    def stamp(self) -> dict[str, Any]:
        """Return the values to store beside the thing, as JSON."""
        code = self.code.model_dump(mode="json")
        return {"code": code, "threads": self.threads, "device": self.device}


def stamped(values: Mapping[str, Any]) -> Maker | None:
    """Return the maker that stored values name; None where they name none."""
    try:
        code = Code.model_validate(values["code"])
        return Maker(code, int(values["threads"]), str(values["device"]))
    except (KeyError, ValueError, TypeError):
        return None


def difference(stored: Maker | None, now: Maker, what: str) -> str | None:
    """Return how the maker of something stored differs from the present one; None if it does not.

    Args:
        stored: its maker, None where it is not known.
        now: the present maker.
        what: name of the thing, as in "this fit".
    """
    if stored is None:
        return f"the code that made {what} is not known"
    if stored.code.digest != now.code.digest:
        return difference_of_code(stored.code, now.code, what)
    if stored.threads != now.threads and stored.device == now.device == "cpu":
        return other_threads(stored.threads, now.threads, what)
    return None


def difference_of_code(stored: Code, now: Code, what: str) -> str:
    """Return a line that names the files that changed since something was made."""
    return f"{named(changes(stored, now))} changed since {what}"


def changes(stored: Code, now: Code) -> list[str]:
    """Return the files that differ between two codes; none where their digests are equal."""
    if stored.digest == now.digest:
        return []
    return changed_files(stored.files, now.files) or ["what its code imports"]


def trusted(doubt: str) -> str:
    """Return the warning of a record that used something stored in spite of a difference."""
    return f"taken as stored (--trust-stored): {doubt}"


def named(files: list[str]) -> str:
    """Return the first of some files and how many more there are: `a.py, b.py and 4 more`."""
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more


def other_threads(stored: int, now: int, what: str) -> str:
    """Return a line with the number of threads that made something, and the present number."""
    return f"{what} was made with {stored} thread{'' if stored == 1 else 's'}, not with {now}"


@dataclass(frozen=True)
class Judge:
    """Decides whether something stored is used, by comparing its maker with the present one.

    Args:
        now: the present maker; None uses everything, and leaves no stamp.
        recorded: returns the maker of something without a stamp, by its digest; None if unknown.
        trust: use everything; the caller writes the differences into the record.
        say: shows one line to the user.
    """

    now: Maker | None = None
    recorded: Callable[[str], Maker | None] = lambda sha256: None
    trust: bool = False
    say: Callable[[str], None] = lambda line: None

    def stamp(self) -> dict[str, Any]:
        """Return the stamp of something that is made now."""
        return self.now.stamp() if self.now else {}

    def made(self, stored: Mapping[str, Any], sha256: str) -> Maker | None:
        """Return the maker of something; None where it is not known.

        Args:
            stored: what is stored beside it, which may hold a stamp.
            sha256: its digest.
        """
        return stamped(stored) or self.recorded(sha256)

    def doubt(self, stored: Mapping[str, Any], sha256: str, what: str) -> str | None:
        """Return how its maker differs from the present one; None if it does not."""
        if self.now is None:
            return None
        return difference(self.made(stored, sha256), self.now, what)

    def objection(self, stored: Mapping[str, Any], sha256: str, what: str) -> str | None:
        """Return why something is not used; None if it is."""
        return None if self.trust else self.doubt(stored, sha256, what)


@dataclass(frozen=True)
class Made:
    """A clean commit of this repository that made something, and with which device and threads."""

    commit: str
    threads: int
    device: str


def made_by_records(runs: Path, sha256: str) -> Made | None:
    """Return the maker of a fit or teacher without a stamp, as the records of a folder tell it.

    The record of the cell that made it counts, otherwise the oldest record that used it. Records
    of a checkout with uncommitted changes do not count, nor do records that hold the digest of
    their code: what such a version makes has a stamp, so that it cannot have made this.

    Args:
        runs: the folder.
        sha256: the digest of the fit, or of a teacher's weights.
    """
    return _by_digest(runs.resolve()).get(sha256)


@cache
def _by_digest(runs: Path) -> dict[str, Made]:
    found: dict[str, tuple[tuple[bool, str], Made]] = {}
    for path in runs.glob("*/*/record.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            environment, device = record["environment"], record["device"]
            made = Made(environment["git_commit"], device["threads"], device["type"])
            fit = record.get("fit") or {}
            names = [(fit["sha256"], fit["reused"])] if fit else []
            names += [(one["sha256"], True) for one in (record["pool"] or {}).get("teachers", ())]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not made.commit or environment["git_dirty"] or record.get("code"):
            continue
        for sha256, reused in names:
            order = (bool(reused), str(record["ended"]))
            if sha256 not in found or order < found[sha256][0]:
                found[sha256] = order, made
    return {sha256: made for sha256, (_, made) in found.items()}


def git(folder: Path, *words: str) -> str | None:
    """Return what `git WORDS` prints in a folder, or None where git or a repository is missing."""
    printed = git_bytes(folder, *words)
    return None if printed is None else printed.decode("utf-8", "replace").strip()


def git_bytes(folder: Path, *words: str) -> bytes | None:
    """Return what `git WORDS` prints, as it is; see `git`.

    git sets `GIT_DIR`, `GIT_INDEX_FILE` and more for hooks, aliases and `rebase --exec`: they
    belong to the repository that is being worked on, so only those with settings are passed on.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")
    }
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=kept,
            capture_output=True,
            timeout=GIT_TIMEOUT,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a repository and whether tracked files differ from it.

    Args:
        root: the folder that holds `.git`; a folder inside a repository is not asked.

    Returns:
        (None, None) where there is no repository, no commit, or no git.
    """
    if not (root / ".git").exists():
        return None, None
    commit = git(root, "rev-parse", "HEAD")
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None, None
    return commit, bool(changes)
