"""Text in lines of the terminal's width, or of a fixed width where the output is no terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping

import click

WIDTH = 100
"""Columns of what goes to a file or a pipe, where COLUMNS does not say another number."""


def columns() -> int:
    """Return the columns of what is printed: those of COLUMNS or of the terminal, else `WIDTH`."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return shutil.get_terminal_size((WIDTH, 24)).columns if known else WIDTH


def print_folded(text: str, name: str = "", indent: int = 0) -> None:
    """Print a text in lines of `columns`, broken between words only, so that paths stay whole.

    Args:
        text: one paragraph.
        name: stands before its first line.
        indent: columns of the name, left free before the other lines.
    """
    gap = " " * indent
    lines = textwrap.wrap(
        text, max(columns() - indent, 1), break_long_words=False, break_on_hyphens=False
    )
    for number, line in enumerate(lines or [""]):
        click.echo(f"{gap if number else name.ljust(indent)}{line}".rstrip())


def print_columns(rows: Mapping[str, str]) -> None:
    """Print names, and beside each what is said of it, two columns apart."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        print_folded(text, name, width + 2)
