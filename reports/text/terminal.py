"""Tables in a terminal; wide ones are split by data set, then by setting."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from reports.tables.table import Column, Entry, Table

if TYPE_CHECKING:
    from rich.console import Console


GAP = "  "
NARROWEST = 24
"""Characters that a column whose texts are wrapped keeps."""

Chosen = list[int]
"""Numbers of the columns that stand side by side."""


def console_width() -> int | None:
    """Return the width of what is printed: the terminal's or that of COLUMNS (None), else 100."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100


def print_tables(tables: Sequence[Table], console: Console, spaced: bool = True) -> None:
    """Print the tables, each with its legend, caption and footnotes, at the console's width.

    Args:
        tables: what to print, one below the other.
        console: where.
        spaced: with an empty line between a table and its caption.
    """
    for table in tables:
        print_text(console, table.title, "bold")
        for chosen in split(table, console.width):
            _print_part(table, chosen, console)
            if spaced:
                console.print()
        legend = f"*: {table.strong_means}. " if table.strong_means else ""
        print_text(console, legend + table.caption, "dim")
        for number, note in enumerate(table.notes, start=1):
            print_text(console, f"[{number}] {note}", "dim")
        console.print()


def print_text(
    console: Console, text: str, style: str = "", name: str = "", indent: int = 0
) -> None:
    """Print text, broken between words at the console's width.

    Args:
        console: where.
        text: one paragraph.
        style: of all lines.
        name: stands before the first line, in the columns of the indent.
        indent: columns that are left free before each line.
    """
    for line in textwrap.wrap(text, console.width - indent, break_on_hyphens=False):
        console.print(Text(f"{name:<{indent}}{line}", style), soft_wrap=True)
        name = ""


def split(table: Table, width: int) -> list[Chosen]:
    """Return the columns of each part: all together, or a data set's, or as many as fit.

    The columns that name the row are part of each; one setting is never taken apart.
    """
    names = [i for i, column in enumerate(table.columns) if not column.block]
    values = [i for i, column in enumerate(table.columns) if column.block]
    if _width(table, names + values) <= width:
        return [names + values]
    parts = []
    for _, family in groupby(values, key=lambda i: table.columns[i].family):
        part: Chosen = []
        for _, members in groupby(family, key=lambda i: table.columns[i].block):
            block = list(members)
            if part and _width(table, names + part + block) > width:
                parts.append(names + part)
                part = []
            part += block
        parts.append(names + part)
    return parts or [names]


def _width(table: Table, chosen: Chosen) -> int:
    """Return what the columns take at least."""
    widths = zip(chosen, _widths(table, chosen), strict=True)
    least = [min(w, NARROWEST) if table.columns[i].wraps else w for i, w in widths]
    return sum(least) + len(GAP) * (len(chosen) - 1)


def _widths(table: Table, chosen: Chosen) -> list[int]:
    """Return column widths: the widest entry, or a longer piece of the header."""
    rows = [row for section in table.sections for row in section.rows]
    return [
        max(
            *(cell_len(piece) for piece in _pieces(table.columns[i].header)),
            *(cell_len(shown(row[i])) for row in rows),
        )
        for i in chosen
    ]


def _fitted(table: Table, chosen: Chosen, width: int) -> list[int]:
    """Return column widths where texts that may be broken give way to a sum of at most `width`."""
    widths = _widths(table, chosen)
    excess = sum(widths) + len(GAP) * (len(chosen) - 1) - width
    for place, i in enumerate(chosen):
        if _breaks(table.columns[i]) and excess > 0:
            less = max(min(widths[place], NARROWEST), widths[place] - excess)
            excess -= widths[place] - less
            widths[place] = less
    return widths


def _breaks(column: Column) -> bool:
    """Tell whether texts may be broken: names of rows, too, where one setting has no room else."""
    return column.wraps or not (column.block or column.numeric)


def _pieces(header: str) -> list[str]:
    return header.split("\n") if "\n" in header else header.split()


def shown(entry: Entry) -> str:
    """Return an entry's text with its marks."""
    text = entry.shown + ("*" if entry.strong else "") + (" †" if entry.tied else "")
    return text + (f" [{','.join(map(str, entry.notes))}]" if entry.notes else "")


def _print_part(table: Table, chosen: Chosen, console: Console) -> None:
    widths = _fitted(table, chosen, console.width)
    columns = [table.columns[i] for i in chosen]
    for line in _header(columns, widths):
        console.print(Text(line.rstrip(), "bold"), soft_wrap=True)
    console.print(Text(GAP.join("─" * width for width in widths)), soft_wrap=True)
    for section in table.sections:
        if section.heading:
            console.print(Text(section.heading, "italic"), soft_wrap=True)
        for row in section.rows:
            for text in _lines(row, chosen, columns, widths):
                console.print(text, soft_wrap=True)


def _header(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    cells = [
        [
            line
            for part in column.header.split("\n")
            for line in textwrap.wrap(part, width, break_on_hyphens=False)
        ]
        for column, width in zip(columns, widths, strict=True)
    ]
    height = max(len(cell) for cell in cells)
    padded = [[""] * (height - len(cell)) + cell for cell in cells]
    return [
        GAP.join(
            _pad(cell[k], column, width)
            for cell, column, width in zip(padded, columns, widths, strict=True)
        )
        for k in range(height)
    ]


def _lines(
    row: Sequence[Entry], chosen: Chosen, columns: Sequence[Column], widths: Sequence[int]
) -> list[Text]:
    """Return a row's lines: one, or more where a text is wrapped."""
    texts = [
        _wrapped(shown(row[i]), width) if _breaks(column) else [shown(row[i])]
        for i, column, width in zip(chosen, columns, widths, strict=True)
    ]
    lines = []
    for k in range(max(map(len, texts))):
        line = Text()
        for place, (i, column, width) in enumerate(zip(chosen, columns, widths, strict=True)):
            text = texts[place][k] if k < len(texts[place]) else ""
            style = "bold green" if row[i].strong else ""
            line.append(GAP if place else "").append(_pad(text, column, width), style)
        line.rstrip()
        lines.append(line)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _pad(text: str, column: Column, width: int) -> str:
    space = " " * (width - cell_len(text))
    return space + text if column.numeric else text + space
