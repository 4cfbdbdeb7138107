"""`bench report`: tables, figures and a page from records, and tables in the terminal."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import BenchError, unknown_name
from bench.paths import UserPath
from reports.tables.table import SCREEN

if TYPE_CHECKING:
    from rich.console import Console

    from bench.results.find import Reading
    from reports.tables.collection import Report


@click.command()
@click.argument("runs", type=UserPath(), default=Path("runs"))
@click.option(
    "-o",
    "--output",
    type=UserPath(),
    help="Where the files go.  [default: RUNS/report]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
@click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the records that match.")
@click.option(
    "--update",
    type=UserPath(),
    multiple=True,
    metavar="PATH",
    help="Write the tables of RUNS/NAME between the '<!-- results: NAME -->' markers of a Markdown "
    "file, or of all such files in a folder, instead; a marker may go on with kinds of tables, "
    "KEY=VALUE, and `planned` where there may be no records yet. Repeat it for several files.",
)
@click.option(
    "--figures/--no-figures", default=True, show_default=True, help="Draw figures, or leave them."
)
@click.option(
    "--formats",
    default="svg",
    show_default=True,
    help="File formats of the figures, with commas: svg, pdf, png.",
)
@click.option(
    "--tables",
    "printed",
    default=SCREEN,
    show_default=True,
    metavar="KINDS",
    help="What is printed: one screen, all tables, or kinds of tables with commas, as "
    "accuracy,paired,cost. The files hold all.",
)
@click.option("--check", is_flag=True, help="With --update: exit 1 if a file would change.")
@click.option(
    "--pictures",
    type=UserPath(),
    metavar="DIR",
    help="Draw the pictures of the docs from RUNS into DIR instead.",
)
@click.option(
    "--with",
    "beside",
    type=UserPath(),
    multiple=True,
    metavar="DIR",
    help="Show the records of another folder, too, such as community; repeatable.",
)
@click.option("--strict", is_flag=True, help="Exit 1 if a record was left out as unreadable.")
@click.pass_context
def report(
    context: click.Context,
    runs: Path,
    output: Path | None,
    as_json: bool,
    only: tuple[str, ...],
    update: tuple[Path, ...],
    figures: bool,
    check: bool,
    pictures: Path | None,
    beside: tuple[Path, ...],
    strict: bool,
    formats: str,
    printed: str,
) -> None:
    """Make tables, figures and one HTML page from records.

    RUNS is a folder of runs, one suite's folder in it, or a folder of stored results.
    """
    if check and not update:
        raise BenchError(
            "--check without --update PATH has nothing to check; name the file or folder"
        )
    from bench.results.find import reading_told

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        if update:
            from reports.updating import Blocks, marked_files, update_file

            files = [file for path in update for file in marked_files(path)]
            blocks = Blocks(runs, only, reading)
            current = [update_file(file, blocks, write=not check) for file in files]
            if check and not all(current):
                context.exit(1)
        elif pictures is not None:
            _draw_pictures(runs, pictures, only, reading)
        else:
            wanted = parse_formats(formats) if figures else ()
            make_report(runs, output, as_json, only, wanted, reading, beside, printed)
    if strict and reading.left_out:
        context.exit(1)


def _draw_pictures(runs: Path, folder: Path, only: tuple[str, ...], reading: Reading) -> None:
    from bench.results.select import load_records
    from reports.pictures import write_pictures

    for path in write_pictures(load_records(runs, only, reading), folder):
        click.echo(f"{path} drawn")


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the file formats that a text names with commas, SVG first: the page needs it.

    Raises:
        BenchError: a format that is not drawn.
    """
    from reports.figures.style import FORMATS

    wanted = text.split(",")
    for name in wanted:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    return tuple(name for name in FORMATS if name in wanted or name == "svg")


def make_report(
    runs: Path,
    output: Path | None = None,
    as_json: bool = False,
    only: tuple[str, ...] = (),
    formats: tuple[str, ...] = (),
    reading: Reading | None = None,
    beside: tuple[Path, ...] = (),
    printed: str = SCREEN,
) -> list[Path]:
    """Print tables of the records below a folder, write the files and return their paths.

    The tables come first, since figures take a while. What cannot be read is left out, and noted
    in `reading`.

    Args:
        runs: the records.
        output: where the files go; None takes the folder `report` of the records.
        as_json: print JSON instead of tables.
        only: KEY=VALUE conditions.
        formats: of the figures, see `parse_formats`; none draws no figure.
        reading: takes note of records that are left out; None warns of them.
        beside: folders of the community's results, see `load_records`.
        printed: `screen`, `all`, or kinds of tables with commas.

    Raises:
        BenchError: no folder, no readable record, a condition that nothing meets, or a kind of
            table that there is not.
    """
    from bench.results.memo import Memo
    from bench.results.select import load_records
    from reports.closing import print_places, print_report
    from reports.offered import warn
    from reports.report import MEMO, write_report
    from reports.tables.collection import compute

    folder = output or runs / "report"
    leave_out = warn if reading is None else reading.leave_out
    report = compute(load_records(runs, only, reading, beside), Memo(folder / MEMO), leave_out)
    if as_json:
        paths = write_report(report, folder, formats, leave_out)
        click.echo(_json(report, paths))
        return paths
    print_report(report, printed, _console())
    paths = write_report(report, folder, formats, leave_out)
    print_places(report, runs, paths, printed, _console())
    return paths


def _console() -> Console:
    import sys

    from rich.console import Console

    from reports.text.terminal import console_width

    return Console(file=sys.stdout, width=console_width())


def _json(report: Report, paths: list[Path]) -> str:
    from reports.tables.agreement import agreement_rows
    from reports.tables.hazards import hazard_rows
    from reports.tables.paired import comparison_rows

    paired = [row for group in report.groups for row in comparison_rows(group)]
    content = {"files": [str(path) for path in paths], "results": report.rows, "paired": paired}
    content["agreement"] = [row for group in report.groups for row in agreement_rows(group)]
    content["hazards"] = [row for family in report.families for row in hazard_rows(family)]
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
