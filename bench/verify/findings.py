"""What checks of records find, and the verdict that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bench.errors import BenchError

Level = Literal["refused", "doubt", "note"]
"""An inconsistency; something that a reader should look at; something to know."""
LEVELS: tuple[Level, ...] = get_args(Level)
TOGETHER = 3
"""Up to so many cells, an equal finding is a line for each."""


@dataclass(frozen=True)
class Finding:
    """The result of one check that has something to say."""

    level: Level
    check: str
    text: str


def refused(check: str, text: str) -> Finding:
    """Return the finding of an inconsistency."""
    return Finding("refused", check, plain(text))


def doubt(check: str, text: str) -> Finding:
    """Return the finding of something that is not known, or unusual."""
    return Finding("doubt", check, plain(text))


def note(check: str, text: str) -> Finding:
    """Return a finding to know of."""
    return Finding("note", check, plain(text))


def plain(text: object) -> str:
    """Return a text on one line, in which what is not printed stands as it is escaped.

    Records and file names of others may hold line breaks, commands to the terminal, marks that turn
    the direction of writing, and halves of characters, which cannot be printed at all.
    """
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


@dataclass
class Checked:
    """A cell's folder and what was found about it.

    `counted` are the checks that could be made, of those that need something that not every record
    holds: `predictions`, `task list`, `hash`, `digests`.
    """

    folder: Path
    cell_hash: str = ""
    label: str = ""
    findings: list[Finding] = field(default_factory=list)
    counted: set[str] = field(default_factory=set)

    @property
    def is_refused(self) -> bool:
        """Whether one of the findings is an inconsistency."""
        return any(one.level == "refused" for one in self.findings)


@dataclass
class Verdict:
    """What was found about a folder of records; `findings` are about the folder itself."""

    root: Path
    cells: list[Checked]
    findings: list[Finding] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """The number of cells that are refused."""
        return sum(one.is_refused for one in self.cells)

    @property
    def is_refused(self) -> bool:
        """Whether a cell or the folder is refused."""
        return bool(self.refused) or any(one.level == "refused" for one in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """For each check that not every record permits, the cells on which it was made."""
        return dict(Counter(check for one in self.cells for check in sorted(one.counted)))

    def located(self) -> Iterable[tuple[Path, Finding]]:
        """Yield all findings with the folder that they are about."""
        for one in self.findings:
            yield self.root, one
        for cell in self.cells:
            for one in cell.findings:
                yield cell.folder, one

    def lines(self) -> list[tuple[str, str, str]]:
        """Return each finding as level, place and text, the worst first.

        What more than `TOGETHER` cells share is one line with their number, but for refusals.
        """
        located = sorted(self.located(), key=lambda pair: LEVELS.index(pair[1].level))
        numbers = Counter(finding for _, finding in located)
        found = []
        for folder, one in located:
            together = numbers[one] > TOGETHER and one.level != "refused"
            where = f"{numbers[one]} cells" if together else plain(folder)
            found.append((one.level, where, f"{one.check}: {one.text}"))
        return list(dict.fromkeys(found))

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return {
            "folder": plain(self.root),
            "refused": self.is_refused,
            "cells": len(self.cells),
            "cells_refused": self.refused,
            "checked": self.counts,
            "findings": [
                {"folder": plain(folder), "level": one.level, "check": one.check, "text": one.text}
                for folder, one in self.located()
            ],
        }


def refuse_to_go_on(verdict: Verdict) -> None:
    """Raise where records are refused of which something was to be made.

    Raises:
        BenchError: with the number of cells, the first reason and the command that shows all.
    """
    if not verdict.is_refused:
        return
    first = next(one for _, one in verdict.located() if one.level == "refused")
    raise BenchError(
        f"{verdict.refused} of {len(verdict.cells)} cells are refused, the first for "
        f"{first.check}: {first.text}; see all: bench verify {plain(verdict.root)}"
    )
