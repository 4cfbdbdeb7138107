"""`bench site`: a static website of records."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from bench.errors import counted
from bench.paths import UserPath


@click.command()
@click.argument("runs", type=UserPath(), default=Path("results"))
@click.option(
    "-o", "--output", type=UserPath(), required=True, metavar="DIR", help="Where the site goes."
)
@click.option(
    "--with",
    "beside",
    type=UserPath(),
    multiple=True,
    metavar="DIR",
    help="Show the records of another folder, too, such as community; repeatable.",
)
@click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the records that match.")
@click.option(
    "--figures/--no-figures", default=True, show_default=True, help="Draw figures, or leave them."
)
def site(
    runs: Path, output: Path, beside: tuple[Path, ...], only: tuple[str, ...], figures: bool
) -> None:
    """Make a static website: a page per scenario, method and cell, and a feed of changes.

    It works from a file and below any address. Built again in the same folder, it says what
    changed since.
    """
    from bench.results.find import reading_told
    from bench.results.memo import Memo
    from bench.results.select import load_records
    from reports.report import MEMO
    from reports.site.build import build_site
    from reports.tables.collection import compute

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        stored = load_records(runs, only, reading, beside)
        report = compute(stored, Memo(output / MEMO), reading.leave_out)
        n = build_site(report, output, figures)
        report.memo.save()
    click.echo(f"{output / 'index.html'}  {counted(n, 'page')} of {counted(len(stored), 'cell')}")
