"""`bench verify`: checks of records; nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.paths import UserPath

if TYPE_CHECKING:
    from bench.verify.findings import Finding, Verdict

COMMANDS = {"refused": "error", "doubt": "warning", "note": "notice"}
"""What GitHub calls the levels of findings."""
LIMITS = (
    "This finds records that contradict themselves, this package or one another, not numbers that "
    "were made up consistently; bench reproduce CELL finds those."
)


@click.command()
@click.argument("path", type=UserPath(), metavar="DIR")
@click.option("--submission", is_flag=True, help="Require what a submission must hold.")
@click.option(
    "--against",
    type=UserPath(),
    metavar="DIR",
    help="Compare accuracies with the stored records of a folder, such as results.",
)
@click.option("--annotations", is_flag=True, help="Print annotations for GitHub's checks.")
@click.option(
    "--write-manifest",
    is_flag=True,
    help="Write DIR/MANIFEST.json, the digests of all cells, if nothing else is refused.",
)
@json_option
@click.pass_context
def verify(
    context: click.Context,
    path: Path,
    submission: bool,
    against: Path | None,
    annotations: bool,
    write_manifest: bool,
    as_json: bool,
) -> None:
    """Check records without running anything; exit 1 if one is refused.

    DIR is the folder of a cell, a suite, runs, stored results or a submission, or a file that
    `bench submit` or `bench archive` wrote.
    """
    from bench.verify.manifest import MANIFEST
    from bench.verify.manifest import write_manifest as write
    from bench.verify.packed import verify_path

    verdict = verify_path(path, submission, against, listed=not write_manifest)
    if write_manifest and not verdict.is_refused:
        write(path)
    if as_json:
        click.echo(json.dumps(verdict.as_json(), indent=1, ensure_ascii=False))
    elif annotations:
        for folder, finding in verdict.located():
            click.echo(annotation(folder, finding))
    else:
        print_verdict(verdict)
        if write_manifest and not verdict.is_refused:
            click.echo(f"{path / MANIFEST} written")
    if verdict.is_refused:
        context.exit(1)


def print_verdict(verdict: Verdict) -> None:
    """Print the findings, equal ones of many cells together, and the sum of all."""
    from bench.verify.findings import plain

    for level, where, text in verdict.lines():
        click.echo(f"{level:<8}{where}: {text}")
    doubts = sum(any(one.level == "doubt" for one in cell.findings) for cell in verdict.cells)
    n = len(verdict.cells)
    click.echo(
        f"{plain(verdict.root)}: {n} cell{'' if n == 1 else 's'}, {verdict.refused} refused, "
        f"{doubts} with doubts"
    )
    counts = ", ".join(f"{check} of {number}" for check, number in verdict.counts.items())
    click.echo(f"Recomputed or compared: {counts or 'nothing'}.")
    click.echo(LIMITS)


def annotation(folder: Path, finding: Finding) -> str:
    """Return a finding as a command of GitHub's workflow log, which shows it at the file."""
    from bench.verify.findings import plain

    file = _escaped(plain((folder / "record.json").as_posix()), ":,")
    title = _escaped(f"bench verify, {finding.check}", ":,")
    command = COMMANDS[finding.level]
    return f"::{command} file={file},title={title}::{_escaped(finding.text)}"


def _escaped(text: str, more: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in f"%\r\n{more}" else c for c in text)
