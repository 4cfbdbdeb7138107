"""`bench submit` and `bench archive`: checked records in one file."""

from __future__ import annotations

from pathlib import Path

import click

from bench.errors import BenchError, counted
from bench.paths import UserPath


@click.command()
@click.argument("runs", type=UserPath(), metavar="DIR")
@click.option(
    "-o", "--output", type=UserPath(), required=True, metavar="FILE", help="The zip to write."
)
@click.option("--name", help="Of the submission.  [default: the name of FILE]")
@click.option("--author", "authors", multiple=True, required=True, help="Repeatable.")
@click.option("--url", help="Where the method's code is.")
@click.option("--paper", help="DOI, arXiv number or address of the method's description.")
@click.option("--against", type=UserPath(), metavar="DIR", help="Compare with stored records.")
def submit(
    runs: Path,
    output: Path,
    name: str | None,
    authors: tuple[str, ...],
    url: str | None,
    paper: str | None,
    against: Path | None,
) -> None:
    """Check records and pack them for a pull request.

    DIR is a folder of runs, or of one suite. Beside FILE, the text of the pull request is written.
    """
    from bench.results.files import write_text
    from bench.verify.submission import submit as make

    if output.suffix != ".zip":
        raise BenchError(f"'{output}' does not end in .zip; name the file so")
    name = name or output.stem
    verdict, text = make(runs, output, name, authors, url, paper, against)
    write_text(output.with_suffix(".md"), text)
    click.echo(f"{counted(len(verdict.cells), 'cell')} checked, none refused")
    click.echo(f"{output}  unpack it into community/{name}/ of a fork of the repository")
    click.echo(f"{output.with_suffix('.md')}  the text of the pull request")


@click.command()
@click.argument("runs", type=UserPath(), metavar="DIR")
@click.option(
    "-o", "--output", type=UserPath(), required=True, metavar="FILE", help="The tar to write."
)
def archive(runs: Path, output: Path) -> None:
    """Check records and pack all their files into one tar, byte for byte alike everywhere.

    DIR is a folder of runs or of stored results. `bench verify FILE` checks the tar.
    """
    from bench.verify.packed import archive as make

    if output.suffix != ".tar":
        raise BenchError(f"'{output}' does not end in .tar; name the file so")
    n = make(runs, output)
    click.echo(f"{output}  {n} files; check them with: bench verify {output}")
