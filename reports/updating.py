"""Tables between the markers of Markdown files, brought up to date from records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bench.errors import BenchError
from bench.results.files import write_text
from bench.results.find import Reading
from bench.results.memo import Memo
from bench.results.select import load_records, narrowed
from bench.results.store import StoredRecord
from reports.tables.build import build_tables
from reports.text.markdown import OPEN, markdown, update_blocks

PLANNED = "planned"
NOTHING_STORED = "No stored records yet.\n"


class Blocks:
    """The text of blocks, made from records that are read once for all of them."""

    def __init__(
        self, runs: Path, only: Sequence[str] = (), reading: Reading | None = None
    ) -> None:
        """Take records and conditions.

        Args:
            runs: the folder that holds a folder of records for each marker's NAME, whose kinds of
                tables and KEY=VALUE conditions follow it; after the word `planned`, a block whose
                records are not there yet says so.
            only: conditions on all records, as in `load_records`.
            reading: takes note of records that are left out; None warns of them.
        """
        self.runs = runs
        self._only = tuple(only)
        self._reading = reading
        self._stored: dict[str, list[StoredRecord]] = {}
        self._memo = Memo()

    def text(self, name: str, words: Sequence[str], folder: Path) -> str:
        """Return the tables of one marker as Markdown.

        Args:
            name: the folder of records.
            words: what follows it.
            folder: where links start from.

        Raises:
            BenchError: no such records, unless they are planned, or an unknown kind of table.
        """
        kinds = tuple(word for word in words if "=" not in word and word != PLANNED)
        conditions = tuple(word for word in words if "=" in word)
        try:
            stored = narrowed(self._records(name), (*self._only, *conditions))
        except BenchError:
            if PLANNED in words:
                return NOTHING_STORED
            raise
        return markdown(build_tables(stored, kinds, self._memo), folder)

    def _records(self, name: str) -> list[StoredRecord]:
        if name not in self._stored:
            self._stored[name] = load_records(self.runs / name, reading=self._reading)
        return self._stored[name]


def marked_files(path: Path) -> list[Path]:
    """Return a file as it is, or the Markdown files below a folder that have a results marker.

    Raises:
        BenchError: a folder without such a file.
    """
    if not path.is_dir():
        return [path]
    pages = sorted(path.rglob("*.md"))
    files = [page for page in pages if OPEN in page.read_text(encoding="utf-8", errors="replace")]
    if not files:
        raise BenchError(f"no .md file in '{path}' has a marker '{OPEN} NAME -->'; name another")
    return files


def update_file(file: Path, blocks: Blocks, write: bool = True) -> bool:
    """Bring the tables between a Markdown file's markers up to date; tell whether they were.

    Args:
        file: the Markdown file.
        blocks: makes the text of each marker.
        write: False leaves the file alone and only says whether it would change.

    Raises:
        BenchError: a file that cannot be read, a marker without end, or as `Blocks.text`.
    """
    try:
        old = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"'{file}' is not a readable text file ({error}); name another") from None
    new = update_blocks(old, lambda name, words: blocks.text(name, words, file.parent))
    if new == old:
        click.echo(f"{file} is up to date")
    elif write:
        write_text(file, new)
        click.echo(f"{file} updated")
    else:
        click.echo(
            f"{file} is out of date; run: bench report {blocks.runs} --update {file}", err=True
        )
    return new == old
