"""Tables and records as text: `markdown`, `latex`, `csv_text`, `terminal_text`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from reports.tables.table import Table
from reports.text.latex import latex
from reports.text.markdown import markdown

__all__ = ["csv_text", "latex", "markdown", "terminal_text"]


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of one shape as CSV in full precision; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def terminal_text(tables: Sequence[Table], width: int = 100) -> str:
    """Return what a terminal of that width shows, without colours."""
    from rich.console import Console

    from reports.text.terminal import print_tables

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False)
    print_tables(tables, console)
    return buffer.getvalue()
