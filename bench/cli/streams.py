"""Output in any encoding: characters that it lacks are replaced and raise no error."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

WIDTH = 100
"""Columns of what goes to a file or a pipe, where COLUMNS does not say another number."""
HANDLER = "purer_bench.similar"
_SIMILAR = {"–": "-", "—": "-", "−": "-", "─": "-", "×": "x", "·": "*", "…": ".", "→": ">"}
_SIMILAR |= {"“": '"', "”": '"', "±": "~", "†": "+", "≈": "=", "≤": "<", "≥": ">"}
"""One character for each, so that the columns of a table stay in line."""


def similar_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by a similar ASCII character, else by `?`.

    An error handler as `codecs.register_error` takes it.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_similar, error.object[error.start : error.end])), error.end


def _similar(character: str) -> str:
    base = unicodedata.normalize("NFKD", character)[0]
    return _SIMILAR.get(character, base if base.isascii() else "?")


def accept_all_characters() -> None:
    """Let standard output and error print any text, whatever encoding the terminal has."""
    codecs.register_error(HANDLER, similar_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


class _Lasting(io.FileIO):
    """A file descriptor to which anything can be written after its reader is gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                click.echo("standard output is closed; the work goes on without it", err=True)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_reader() -> None:
    """Let work go on where what reads its output ends, as `head` does."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return
    stream.flush()
    raw = _Lasting(stream.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, HANDLER, line_buffering=True
    )


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
