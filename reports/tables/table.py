"""Tables as plain values: columns, sections of rows, a caption, footnotes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SCREEN = "screen"
"""What is printed unless kinds of tables are asked for; see `reports.closing`."""


@dataclass(frozen=True)
class Entry:
    """One field of a table: its text, its marks, and the numbers of its footnotes.

    `tied` marks what cannot be told from the best. `links` are names of files and their paths,
    shown after the text.
    """

    text: str
    strong: bool = False
    tied: bool = False
    notes: tuple[int, ...] = ()
    links: tuple[tuple[str, Path], ...] = ()

    @property
    def shown(self) -> str:
        """The text with the names of the linked files, for where nothing can be followed."""
        return " ".join(filter(None, (self.text, *(name for name, _ in self.links))))


@dataclass(frozen=True)
class Column:
    """A column; those of one `block` (a setting) stay together, then those of one `family`.

    A column without block names the row, and is repeated where a table is split for width. A
    header with line breaks is broken there and nowhere else. Texts of a column that `wraps` are
    broken between words where there is no room for them.
    """

    header: str
    block: str = ""
    family: str = ""
    numeric: bool = True
    wraps: bool = False

    @property
    def title(self) -> str:
        """The header on one line."""
        return self.header.replace("\n", " ")


@dataclass(frozen=True)
class Section:
    """Rows with one heading; each row has an entry per column."""

    heading: str
    rows: list[list[Entry]]


@dataclass(frozen=True)
class Table:
    """A table; `strong_means` explains bold entries, if there can be any.

    `notes[i]` is footnote i + 1.
    """

    kind: str
    title: str
    columns: list[Column]
    sections: list[Section]
    caption: str
    strong_means: str = ""
    notes: list[str] = field(default_factory=list)


class Footnotes:
    """Numbers for reasons; equal reasons share one."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """Return the number of a reason, from 1."""
        text = " ".join(text.split())
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def label(text: str) -> Entry:
    """Return an entry that only names something."""
    return Entry(text)
