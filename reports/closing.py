"""The closing screen: the main table, three sentences, the places of the files, and what next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len

from bench.errors import counted, unknown_name
from reports.page.content import compared, leader_lines, protocol_name
from reports.rows.groups import Group
from reports.sentences import sentences
from reports.tables.accuracy import OVER_SEEDS, accuracy_table
from reports.tables.caption import pool_phrase, seeds_sentence
from reports.tables.summary import leaders
from reports.tables.table import SCREEN, Column, Entry, Section, Table, label
from reports.text.terminal import print_tables, print_text

if TYPE_CHECKING:
    from rich.console import Console

    from reports.tables.collection import Report

LINES = 45
"""Lines of the whole screen."""
BEST = "the best without data, inductive or transductive"
BELOW = 9
"""Lines of it for the places: three to five of `print_places`, and four of `bench run`."""
INDENT = 9
"""Columns of the words that begin the lines below the table."""
LEADERS = "leaders"
"""The kind of the table of several groups, which only the screen has."""
LEAST_ROWS = 1
"""Rows of a section that are shown in any case."""


def print_report(report: Report, printed: str, console: Console) -> None:
    """Print the closing screen, or tables.

    Args:
        report: what the records say.
        printed: `screen`, `all`, or kinds of tables with commas.
        console: where to print.

    Raises:
        BenchError: a kind that no table of the report is of.
    """
    if printed == SCREEN:
        print_closing(report, console)
    else:
        print_tables(chosen_tables(report, printed), console)


def chosen_tables(report: Report, printed: str) -> list[Table]:
    """Return the tables that `print_report` prints; see there."""
    if printed in (SCREEN, "all"):
        return main_tables(report)[:1] if printed == SCREEN else report.all_tables
    wanted = printed.split(",")
    known = sorted({table.kind for table in report.all_tables})
    for kind in wanted:
        if kind not in known:
            raise unknown_name("table", kind, [SCREEN, "all", *known])
    return [table for table in report.all_tables if table.kind in wanted]


def print_closing(report: Report, console: Console) -> None:
    """Print what a reader needs first: with the places below it, one screen of `LINES` lines.

    Args:
        report: what the records say.
        console: where to print; its width counts.
    """

    def said() -> None:
        found = sentences(compared(report.shown) or report.groups)
        for name, text in zip(("best", "cost", "caution"), found or (), strict=False):
            print_text(console, text, name=name, indent=INDENT)

    tables = main_tables(report)
    if tables:
        _print_fitted(tables[0], LINES - BELOW - _height(said, console), console)
    said()


def main_tables(report: Report) -> list[Table]:
    """Return the table that comes first: the leaders of several groups, or the one's accuracy.

    Where no group has a leader, it is the accuracy of the first.
    """
    groups = compared(report.shown)
    if len(groups) > 1 and (table := leaders_table(groups)).sections:
        return [table]
    if groups:
        table = without_column(accuracy_table(groups[0]), OVER_SEEDS)
        return [replace(table, caption=short_caption(groups[0]), strong_means=BEST)]
    return report.hazards or report.offered


def leaders_table(groups: Sequence[Group]) -> Table:
    """Return the best data-free row of each setting, its lead and its cost."""
    names = ("where", "best", "accuracy %", "lead in points [95 %]")
    sections = [
        Section(
            protocol_name(group),
            [[label(line[key]) for key in ("where", "best", "accuracy", "lead")] for line in lines],
        )
        for group in groups
        if (lines := leader_lines(group))
    ]
    return Table(
        kind=LEADERS,
        title="The best data-free row of each setting",
        columns=[
            Column(name, numeric=name == "accuracy %", wraps=name == names[-1]) for name in names
        ],
        sections=sections,
        caption="Percent, ± is the 95 % half-width over test tasks; the lead is the paired "
        "difference from the next row. Settings do not compare with one another.",
    )


def without_column(table: Table, header: str) -> Table:
    """Return a table without the columns of a header."""
    kept = [i for i, column in enumerate(table.columns) if column.header != header]
    sections = [
        Section(section.heading, [[row[i] for i in kept] for row in section.rows])
        for section in table.sections
    ]
    return replace(table, columns=[table.columns[i] for i in kept], sections=sections)


def short_caption(group: Group) -> str:
    """Return the caption of an accuracy table without what a first look needs not."""
    record = group.first
    seeds = seeds_sentence(group).split(";")[0].rstrip(".")
    return (
        "†: tied with it (paired interval contains 0). Percent, ± is the 95 % half-width over "
        f"{counted(record.n_test_tasks, 'test task')}. {seeds}; budget {record.budget['name']}, "
        f"{counted(record.budget['meta_iterations'], 'meta-iteration', ',')}; {pool_phrase(group)}"
        "all constants: in the page."
    )


def _height(show: Callable[[], None], console: Console) -> int:
    """Return the lines that something takes."""
    with console.capture() as capture:
        show()
    return capture.get().count("\n")


def _print_fitted(table: Table, room: int, console: Console) -> None:
    """Print a table with as many rows of each section as there is room for."""
    most = max(len(section.rows) for section in table.sections)
    for rows in range(most, LEAST_ROWS, -1):
        shown = shortened(table, rows)
        if _height(lambda: print_tables([shown], console, spaced=False), console) <= room:  # noqa: B023
            break
    else:
        shown = shortened(table, LEAST_ROWS)
    print_tables([shown], console, spaced=False)


def shortened(table: Table, rows: int) -> Table:
    """Return a table with the first rows of each section, which says how many are left out.

    Footnotes that only those have are left out with them.
    """
    sections = [_shortened(section, rows) for section in table.sections]
    entries = [entry for section in sections for row in section.rows for entry in row]
    used = sorted({number for entry in entries for number in entry.notes})
    places = {number: place for place, number in enumerate(used, start=1)}
    for section in sections:
        section.rows[:] = [[_renumbered(entry, places) for entry in row] for row in section.rows]
    return replace(table, sections=sections, notes=[table.notes[number - 1] for number in used])


def _shortened(section: Section, rows: int) -> Section:
    more = len(section.rows) - rows
    if more <= 1:  # the line that says so would take the place of the row
        return Section(section.heading, list(section.rows))
    blank = [label("")] * (len(section.rows[0]) - 1)
    return Section(section.heading, [*section.rows[:rows], [label(f"… {more} more"), *blank]])


def _renumbered(entry: Entry, places: dict[int, int]) -> Entry:
    return replace(entry, notes=tuple(places[number] for number in entry.notes))


def print_places(
    report: Report, source: Path, paths: Sequence[Path], printed: str, console: Console
) -> None:
    """Name the page, the files beside it, and commands to go on with.

    Args:
        report: what the records say.
        source: their folder.
        paths: the report's files.
        printed: what was printed, see `print_report`.
        console: where to print.
    """
    page = next((path for path in paths if path.suffix == ".html"), paths[0])
    others = [path.name + "/" * path.is_dir() for path in paths if path != page]
    _print_place("page", str(page), f"(beside it {', '.join(others)})", console)
    bench = own_command("bench")
    seen = [table for table in chosen_tables(report, printed) if table.kind != LEADERS]
    n_more = len(report.all_tables) - len(seen)
    if n_more:
        command = f"{bench} report {shlex.quote(str(source))} --tables all"
        _print_place("next", command, f"({n_more} more table{'s' * (n_more > 1)})", console)
    first = next((one for group in report.groups for one in leaders(group)), None)
    if first is not None:
        method = first.row.method
        command = f"{bench} show {method}"
        _print_place("" if n_more else "next", command, "(the best row)", console)


def _print_place(name: str, place: str, remark: str, console: Console) -> None:
    """Print a place in one line, so that it can be copied, and beside or below it a remark."""
    line = f"{name:<{INDENT}}{place}"
    beside = cell_len(f"{line}  {remark}") <= console.width
    text = f"{line}  {remark}" if beside else line
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    if not beside:
        print_text(console, remark, indent=INDENT)


def own_command(name: str) -> str:
    """Return how a program of this environment is called from here."""
    program = Path(sys.executable).with_name(name)
    if (found := shutil.which(name)) and Path(found) == program:
        return name
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)
