"""`bench report`: tables from records, in the terminal and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.errors import BenchError

MARKDOWN, LATEX, CSV = "tables.md", "tables.tex", "results.csv"
HAZARDS_CSV = "hazards.csv"


@click.command()
@click.argument("runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where the files go.  [default: RUNS/report]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
@click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the records that match.")
@click.option(
    "--update",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the tables of RUNS/NAME between FILE's '<!-- results: NAME -->' markers instead.",
)
@click.option("--check", is_flag=True, help="With --update: exit 1 if FILE would change.")
@click.pass_context
def report(
    context: click.Context,
    runs: Path,
    output: Path | None,
    as_json: bool,
    only: tuple[str, ...],
    update: Path | None,
    check: bool,
) -> None:
    """Make tables from records.

    RUNS is a folder of runs, one suite's folder in it, or a folder of stored results.
    """
    if check and update is None:
        raise BenchError("--check without --update FILE has nothing to check; name the file")
    if update is not None:
        if not update_file(runs, update, only, write=not check) and check:
            context.exit(1)
        return
    make_report(runs, output, as_json, only)


def close_suite(folder: Path, output: Path | None) -> None:
    """Print and write the tables of one suite's records: what `bench run` ends with."""
    make_report(folder, output)


def make_report(
    runs: Path, output: Path | None = None, as_json: bool = False, only: tuple[str, ...] = ()
) -> list[Path]:
    """Print the tables of the records below a folder, write the files and return their paths.

    Raises:
        BenchError: no folder, no records, an unreadable one, or a condition that nothing meets.
    """
    from bench.records import write_text
    from reports.frame import record_row
    from reports.hazards import hazard_families, hazard_rows
    from reports.render import csv_text, latex, markdown
    from reports.select import load_records
    from reports.tables import build_tables

    stored = load_records(runs, only)
    tables = build_tables(stored)
    rows = [record_row(one) for one in stored]
    folder = output or runs / "report"
    texts = {MARKDOWN: markdown(tables), LATEX: latex(tables), CSV: csv_text(rows)}
    if choices := [row for family in hazard_families(stored) for row in hazard_rows(family)]:
        texts[HAZARDS_CSV] = csv_text(choices)
    for name, text in texts.items():
        write_text(folder / name, text)
    paths = [folder / name for name in texts]
    if as_json:
        click.echo(_json(stored, rows, paths))
    else:
        _print(tables, paths)
    return paths


def _print(tables: list[Any], paths: list[Path]) -> None:
    import sys

    from rich.console import Console

    from reports.terminal import print_tables

    width = None if sys.stdout.isatty() else 100
    print_tables(tables, Console(file=sys.stdout, width=width))
    for number, path in enumerate(paths):
        click.echo(f"{'' if number else 'tables':<9}{path}")


def _json(stored: list[Any], rows: list[dict[str, Any]], paths: list[Path]) -> str:
    from reports.groups import make_groups
    from reports.hazards import hazard_families, hazard_rows
    from reports.paired import comparison_rows

    paired = [row for group in make_groups(stored) for row in comparison_rows(group)]
    choices = [row for family in hazard_families(stored) for row in hazard_rows(family)]
    content = {"files": [str(path) for path in paths], "results": rows, "paired": paired}
    content["hazards"] = choices
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def update_file(runs: Path, file: Path, only: tuple[str, ...] = (), write: bool = True) -> bool:
    """Bring the tables between a Markdown file's markers up to date; tell whether they were.

    Args:
        runs: the folder that holds a folder of records for each marker's NAME.
        file: the Markdown file.
        only: as in `make_report`.
        write: False leaves the file alone and only says whether it would change.

    Raises:
        BenchError: a file that cannot be read, a marker without end, or as `make_report`.
    """
    from bench.records import write_text
    from reports.markdown import markdown, update_blocks
    from reports.select import load_records
    from reports.tables import build_tables

    try:
        old = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"'{file}' is not a readable text file ({error}); name another") from None

    def make(name: str, kinds: tuple[str, ...]) -> str:
        return markdown(build_tables(load_records(runs / name, only), kinds))

    new = update_blocks(old, make)
    if new == old:
        click.echo(f"{file} is up to date")
    elif write:
        write_text(file, new)
        click.echo(f"{file} updated")
    else:
        click.echo(f"{file} is out of date; run: bench report {runs} --update {file}", err=True)
    return new == old
