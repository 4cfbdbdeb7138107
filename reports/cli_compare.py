"""`bench compare`: compare two runs, two commits or two methods, for people and for CI."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import counted
from bench.paths import UserPath

if TYPE_CHECKING:
    from bench.results.compare import Comparison
    from reports.tables.table import Table

FAIL_ON: dict[str, tuple[str, ...]] = {
    "lower": ("lower",),
    "different": ("lower", "higher"),
    "changed": ("lower", "higher", "equivalent", "undecided", "not comparable"),
}


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--runs",
    type=UserPath(),
    default=Path("runs"),
    show_default=True,
    help="Where A and B are looked for if they are methods or commits.",
)
@click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the records that match.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    help="Points within which two results count as equivalent.",
)
@click.option(
    "--fail-if",
    type=click.Choice(list(FAIL_ON)),
    help="Exit 1 if B is significantly lower, is significantly different, or is not bitwise equal; "
    "always if it lacks a result that A has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
@click.option("--strict", is_flag=True, help="Exit 1 if a record was left out as unreadable.")
@click.pass_context
def compare(
    context: click.Context,
    a: str,
    b: str,
    runs: Path,
    only: tuple[str, ...],
    margin: float,
    fail_if: str | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Compare B with A: two folders of records, two methods or two commits.

    A method may be named with its learner, as in 'purer maml'. Differences are B minus A, paired
    on the same test tasks.
    """
    from bench.results.compare import as_rows, compare_sides, resolve
    from bench.results.find import reading_told
    from bench.results.places import Side
    from bench.results.select import narrowed

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        first, second, methods = resolve(a, b, runs, reading)
    if only:
        first = Side(first.name, narrowed(first.stored, only))
        second = Side(second.name, narrowed(second.stored, only))
    found = compare_sides(first, second, methods, margin / 100)
    if as_json:
        click.echo(json.dumps(as_rows(found), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _print(found, margin)
    failed = _fails(found, fail_if, quiet=as_json)
    if failed or (strict and reading.left_out):
        context.exit(1)


def _fails(found: Comparison, fail_if: str | None, quiet: bool) -> bool:
    """Tell whether a comparison fails under `--fail-if`, and say why unless told to be quiet."""
    failing = FAIL_ON.get(fail_if or "", ())
    n = sum(one.verdict in failing for one in found.changes)
    if not fail_if or not (n or found.lost):
        return False
    if not quiet:
        text = f"{n} of {counted(len(found.changes), 'cell')} fail --fail-if {fail_if}"
        lost = f"; {found.lost} with a result in A have none in B" if found.lost else ""
        click.echo(text + lost, err=True)
    return True


def _print(found: Comparison, margin: float) -> None:
    import sys

    from rich.console import Console

    from reports.text.terminal import console_width, print_tables

    print_tables([table(found, margin)], Console(file=sys.stdout, width=console_width()))
    for word, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            click.echo(f"only in {word}: {'; '.join(names)}")
    click.echo("configuration:" + ("" if found.configuration else " the same"))
    for text, names in found.configuration.items():
        cells = (
            "all cells" if len(names) == len(found.changes) else f"{counted(len(names), 'cell')}"
        )
        click.echo(f"  {text} ({cells})")
    click.echo("environment: " + ("" if found.environment else "the same"))
    for name, (a, b) in found.environment.items():
        click.echo(f"  {name}: {a} → {b}")
    for name, (ratio, n) in found.speed.items():
        click.echo(f"{name}: × {ratio:.2f} (median of {counted(n, 'cell')})")


def table(found: Comparison, margin: float) -> Table:
    """Return the table of changes."""
    from reports.tables.paired import p_text, signed
    from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

    notes = Footnotes()
    lines = []
    for one in found.changes:
        means = [r.record.accuracy for r in (one.a, one.b)]
        texts = [f"{100 * m.mean:.1f}" if m else "–" for m in means]
        d = one.difference
        change = f"{signed(d.mean)} [{signed(d.low)}, {signed(d.high)}]" if d else "–"
        numbers = (notes.number(one.reason),) if one.reason else ()
        strong = one.verdict in ("higher", "lower")
        lines.append(
            [
                label(one.name),
                *map(label, texts),
                Entry(change, strong=strong),
                label("–" if one.p_holm is None else p_text(one.p_holm)),
                label("–" if one.ahead is None else f"{100 * one.ahead:.0f} %"),
                Entry(one.verdict, notes=numbers),
            ]
        )
    headers = ("A %", "B %", "B - A", "p", "B ahead")
    return Table(
        kind="compare",
        title=f"{found.b.name} compared with {found.a.name}",
        columns=[
            Column("cell", numeric=False, wraps=True),
            *(Column(name, name) for name in headers),
            Column("verdict", "verdict", numeric=False),
        ],
        sections=[Section("", lines)],
        caption="Difference in points with its 95 % t interval on the same test tasks; p: "
        "sign-flip permutation test, Holm-adjusted over this table; B ahead: share of tasks, ties "
        f"half. Equivalent: within ±{margin:g} points by two one-sided tests (5 %). Same: equal on "
        "every task.",
        strong_means="p below 0.05",
        notes=notes.texts,
    )
