"""Tables as Markdown, and updates of the tables in Markdown files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import BenchError
from reports.tables.table import Entry, Table

_BLOCK = re.compile(
    r"(?P<open><!-- results: (?P<words>[^\n]*?) -->\n)(?P<text>.*?)(?P<close><!-- /results -->)",
    re.DOTALL,
)
OPEN, _CLOSE = "<!-- results:", "<!-- /results -->"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is; underscores within words need nothing."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\|*`\[\]])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def markdown(tables: Sequence[Table], folder: Path = Path()) -> str:
    """Return the tables one below the other, each with title, legend, caption and footnotes.

    Args:
        tables: what to show.
        folder: of the Markdown file; links are relative to it.
    """
    return "\n".join(_one(table, folder) for table in tables)


def _one(table: Table, folder: Path) -> str:
    lines = [
        f"**{escape(table.title)}**",
        "",
        _row([escape(column.title) for column in table.columns]),
        _row(["---:" if column.numeric else ":---" for column in table.columns]),
    ]
    for section in table.sections:
        if section.heading:
            lines.append(_row([f"*{escape(section.heading)}*"] + [""] * (len(table.columns) - 1)))
        lines += [_row([_entry(entry, folder) for entry in row]) for row in section.rows]
    legend = f"Bold: {table.strong_means}. " if table.strong_means else ""
    lines += ["", legend + escape(table.caption)]
    for number, note in enumerate(table.notes, start=1):
        lines += ["", f"<sup>{number}</sup> {escape(note)}"]
    return "\n".join(lines) + "\n"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _entry(entry: Entry, folder: Path) -> str:
    text = f"**{escape(entry.text)}**" if entry.strong else escape(entry.text)
    text += " †" if entry.tied else ""
    links = [f"[{escape(name)}]({_relative(path, folder)})" for name, path in entry.links]
    text = " ".join(filter(None, (text, *links)))
    return text + (f"<sup>{','.join(map(str, entry.notes))}</sup>" if entry.notes else "")


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def update_blocks(text: str, make: Callable[[str, tuple[str, ...]], str]) -> str:
    """Replace what stands between `<!-- results: NAME words -->` and `<!-- /results -->`.

    Args:
        text: a Markdown file.
        make: (NAME, the words after it) → the Markdown that belongs there.

    Raises:
        BenchError: no marker, one without its end or name, or what `make` raises.
    """
    blocks = list(_BLOCK.finditer(text))
    if not len(blocks) == text.count(OPEN) == text.count(_CLOSE) or not blocks:
        raise BenchError(
            f"{text.count(OPEN)} lines '{OPEN} NAME -->' and {text.count(_CLOSE)} lines "
            f"'{_CLOSE}' do not pair up; write at least one pair, each marker on its own line"
        )

    def replace(match: re.Match[str]) -> str:
        words = match["words"].split()
        if not words or OPEN in match["text"]:
            raise BenchError(
                f"marker '{match['open'].strip()}' lacks a name or its end; write "
                f"'{OPEN} NAME -->' and '{_CLOSE}'"
            )
        return f"{match['open']}\n{make(words[0], tuple(words[1:]))}\n{match['close']}"

    return _BLOCK.sub(replace, text)
