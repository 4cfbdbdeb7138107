"""`bench export`: records, data sets and the package in formats of others."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.paths import UserPath

if TYPE_CHECKING:
    from bench.results.store import StoredRecord

_output = click.option(
    "-o", "--output", type=UserPath(), metavar="PATH", help="[default: standard output]"
)
_runs = click.argument("runs", type=UserPath(), metavar="DIR")
_only = click.option(
    "--only", multiple=True, metavar="KEY=VALUE", help="Keep the records that match."
)


@click.group()
def export() -> None:
    """Write records, data sets or the package's description in a format of others."""


@export.command("ro-crate")
@_runs
@click.option(
    "--licence",
    default="https://spdx.org/licenses/CC-BY-4.0",
    show_default=True,
    help="Address of the records' licence.",
)
@click.option("--author", default="", help="Who ran the cells.")
def ro_crate(runs: Path, licence: str, author: str) -> None:
    """Write DIR/ro-crate-metadata.json: an RO-Crate of the profile Process Run Crate."""
    from bench.exports.ro_crate import METADATA, crate
    from bench.results.files import write_json
    from bench.results.find import find_records, reading_told

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        stored = find_records(runs, reading)
    write_json(runs / METADATA, crate(runs, stored, licence, author))
    click.echo(f"{runs / METADATA} written")


@export.command("every-eval-ever")
@_runs
@_only
@click.option("--organisation", required=True, help="Who ran the cells.")
@click.option("--first-party", is_flag=True, help="They made the method, too.")
@click.option(
    "-o", "--output", type=UserPath(), required=True, metavar="DIR", help="A file per cell."
)
def every_eval_ever(
    runs: Path, only: tuple[str, ...], organisation: str, first_party: bool, output: Path
) -> None:
    """Write one file per finished cell in the schema of Every Eval Ever."""
    from bench.exports.every_eval_ever import evaluation
    from bench.results.files import write_json

    records = [one.record for one in _records(runs, only) if one.record.status == "done"]
    for record in records:
        path = output / f"{record.suite}-{record.cell_hash}.json"
        write_json(path, evaluation(record, organisation, first_party))
    click.echo(f"{output}  {len(records)} files")


@export.command("eval-results")
@_runs
@_only
@click.option(
    "--dataset", required=True, metavar="OWNER/NAME", help="The benchmark's data set on the Hub."
)
@click.option("--url", help="Where the records are.")
@_output
def eval_results(
    runs: Path, only: tuple[str, ...], dataset: str, url: str | None, output: Path | None
) -> None:
    """Write the cells of one method for `.eval_results/` of its model repository on the Hub."""
    import yaml

    from bench.exports.eval_results import entries

    records = [one.record for one in _records(runs, only)]
    found = entries(records, dataset, url)
    _put(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), output)


@export.command("croissant")
@click.argument("dataset")
@_output
def croissant(dataset: str, output: Path | None) -> None:
    """Describe a data set, with its splits and digests, as Croissant."""
    from bench import registry
    from bench.exports.croissant import croissant as describe

    _put_json(describe(registry.load("dataset", dataset)()), output)


@export.command("codemeta")
@click.argument("citation", type=UserPath(), default=Path("CITATION.cff"))
@_output
def codemeta(citation: Path, output: Path | None) -> None:
    """Describe the package as CodeMeta, from its citation file and its metadata."""
    from importlib.metadata import distribution

    import yaml

    from bench import registry
    from bench.exports.codemeta import codemeta as describe

    try:
        content = yaml.safe_load(citation.read_text(encoding="utf-8"))
        described = describe(content, distribution(registry.OWN))
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise BenchError(
            f"'{citation}' is no complete citation file ({error}); name CITATION.cff"
        ) from None
    _put_json(described, output)


def _records(runs: Path, only: tuple[str, ...] = ()) -> list[StoredRecord]:
    from bench.results.find import reading_told
    from bench.results.select import load_records

    with reading_told(functools.partial(click.echo, err=True)) as reading:
        return load_records(runs, only, reading)


def _put_json(value: dict[str, Any], output: Path | None) -> None:
    _put(json.dumps(value, indent=1, ensure_ascii=False) + "\n", output)


def _put(text: str, output: Path | None) -> None:
    from bench.results.files import write_text

    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(f"{output} written")
