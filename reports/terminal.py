"""Tables in a terminal: split by data set, then by setting, where they are too wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from reports.model import Column, Entry, Table

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
Chosen = list[int]
"""Numbers of the columns that stand side by side."""


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print the tables, each with its legend, caption and footnotes, at the console's width."""
    for table in tables:
        _print_text(console, table.title, "bold")
        for chosen in split(table, console.width):
            _print_part(table, chosen, console)
        legend = f"*: {table.strong_means}. " if table.strong_means else ""
        _print_text(console, legend + table.caption, "dim")
        for number, note in enumerate(table.notes, start=1):
            _print_text(console, f"[{number}] {note}", "dim")
        console.print()


def _print_text(console: Console, text: str, style: str) -> None:
    for line in textwrap.wrap(text, console.width, break_on_hyphens=False):
        console.print(Text(line, style), soft_wrap=True)


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
    return parts


def _width(table: Table, chosen: Chosen) -> int:
    return sum(_widths(table, chosen)) + len(GAP) * (len(chosen) - 1)


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


def _pieces(header: str) -> list[str]:
    return header.split("\n") if "\n" in header else header.split()


def shown(entry: Entry) -> str:
    """Return an entry's text with its marks."""
    text = entry.text + ("*" if entry.strong else "") + (" †" if entry.tied else "")
    return text + (f" [{','.join(map(str, entry.notes))}]" if entry.notes else "")


def _print_part(table: Table, chosen: Chosen, console: Console) -> None:
    widths = _widths(table, chosen)
    columns = [table.columns[i] for i in chosen]
    for line in _header(columns, widths):
        console.print(Text(line.rstrip(), "bold"), soft_wrap=True)
    console.print(Text(GAP.join("─" * width for width in widths)), soft_wrap=True)
    for section in table.sections:
        if section.heading:
            console.print(Text(section.heading, "italic"), soft_wrap=True)
        for row in section.rows:
            console.print(_line(row, chosen, columns, widths), soft_wrap=True)
    console.print()


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


def _line(
    row: Sequence[Entry], chosen: Chosen, columns: Sequence[Column], widths: Sequence[int]
) -> Text:
    line = Text()
    for place, (i, column, width) in enumerate(zip(chosen, columns, widths, strict=True)):
        style = "bold green" if row[i].strong else ""
        line.append(GAP if place else "").append(_pad(shown(row[i]), column, width), style)
    line.rstrip()
    return line


def _pad(text: str, column: Column, width: int) -> str:
    space = " " * (width - cell_len(text))
    return space + text if column.numeric else text + space
