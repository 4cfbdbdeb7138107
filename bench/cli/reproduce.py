"""`bench reproduce`: run a stored cell again from its record alone, and say whether it agrees."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from pathlib import Path

import click

from bench.cli.options import (
    cache_option,
    data_option,
    dataset_dir_option,
    json_option,
    pairs,
    preparing,
)
from bench.paths import UserPath


@click.command()
@click.argument("cell")
@click.option(
    "--runs",
    type=UserPath(),
    default=Path("runs"),
    show_default=True,
    help="Where CELL is looked for if it is a hash.",
)
@click.option(
    "--keep",
    type=click.Choice(["nothing", "teachers", "fit"]),
    default="nothing",
    show_default=True,
    help="What of the cache may be used again beside decoded data.",
)
@click.option(
    "-o",
    "--output",
    type=UserPath(),
    help="Keep the repetition's folder here.  [default: it is dropped]",
)
@click.option("--device", help="As for `bench run`.  [default: as in the record]")
@click.option("--threads", type=click.IntRange(1), help="[default: as in the record]")
@data_option
@dataset_dir_option
@cache_option
@json_option
@click.pass_context
def reproduce(
    context: click.Context,
    cell: str,
    runs: Path,
    keep: str,
    output: Path | None,
    device: str | None,
    threads: int | None,
    data_dir: Path | None,
    dataset_dirs: tuple[str, ...],
    cache: Path,
    as_json: bool,
) -> None:
    """Run a stored cell again from its record alone; exit 1 if it differs.

    CELL is the folder of a record, such as results/SUITE/HASH, or the beginning of a cell's hash in
    --runs. For a cell of a submission, a badge with the verdict is written.
    """
    from bench.cli.display import QuietDisplay, make_display
    from bench.execute.reproduce import (
        as_row,
        cell_of,
        find_cell,
        fresh_cache,
        judge,
        open_datasets,
        run_again,
        sentences,
    )
    from bench.results.community import write_badge
    from bench.results.find import reading_told

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        stored = find_cell(cell, runs, reading)
    cell_of(stored.record)
    named = pairs(dataset_dirs)
    data = open_datasets(stored.record, cache, data_dir, named, preparing(as_json))
    with contextlib.ExitStack() as stack:
        place = output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fresh = stack.enter_context(fresh_cache(cache, keep))
        quiet = QuietDisplay(1, functools.partial(click.echo, err=True))
        with quiet if as_json else make_display(1, click.echo, False) as display:
            again = run_again(stored, data, fresh, place, device, threads, display)
        outcome = judge(stored, again)
        badge = write_badge(stored, as_row(outcome), again.record)
        if as_json:
            notices = [line for lines in quiet.notices.values() for line in lines]
            click.echo(json.dumps({**as_row(outcome), "notices": notices}, indent=1))
        else:
            for line in sentences(outcome):
                click.echo(line)
            if badge:
                click.echo(f"{badge} written")
    if outcome.verdict == "different":
        context.exit(1)
