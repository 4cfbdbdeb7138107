"""`bench check`: conformance checks of plug-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.cli.options import data_option, dataset_dir_option, json_option, pairs

KINDS: tuple[registry.Kind, ...] = (
    "method",
    "learner",
    "net",
    "dataset",
    "calibration",
    "protocol",
    "budget",
    "suite",
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--kind", type=click.Choice(KINDS), help="Of the names.  [default: every kind]")
@click.option("--net", default="conv4", show_default=True, help="Network to try it with.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the methods, such as one that shortens their fits.",
)
@data_option
@dataset_dir_option
@json_option
@click.pass_context
def check(
    context: click.Context,
    names: tuple[str, ...],
    kind: str | None,
    net: str,
    settings: tuple[str, ...],
    data_dir: Path | None,
    dataset_dirs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that registered plug-ins do what the harness relies on; exit 1 where one does not.

    Fits are made on three tiny teachers, so that a check takes seconds and says nothing of
    accuracy.
    """
    from bench.suites.suite import parse_setting
    from bench.testing.checks import run_checks

    options: dict[str, dict[str, Any]] = {kind: {"net": net} for kind in ("learner", "calibration")}
    options["method"] = {"net": net, "settings": dict(map(parse_setting, settings))}
    places = pairs(dataset_dirs)
    options["dataset"] = {"data_dir": data_dir, "dataset_dirs": places}
    rows = []
    for name in names:
        for one in _kinds_of(name, kind):
            if not as_json:
                click.echo(f"{one} {name}")
            for result in run_checks(one, name, **options.get(one, {})):
                rows.append(result.row())
                if not as_json:
                    detail = f" – {result.detail}" if result.detail else ""
                    click.echo(f"  {result.outcome:<8}{result.check}{detail}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    if any(row["outcome"] == "failed" for row in rows):
        context.exit(1)


def _kinds_of(name: str, kind: str | None) -> list[registry.Kind]:
    """Return the kinds of plug-in that carry a name.

    Raises:
        BenchError: none does.
    """
    from bench.errors import unknown_name
    from bench.suites.catalogue import names_of

    known: dict[registry.Kind, list[str]]
    known = {one: names_of(one) for one in KINDS if kind in (None, one)}
    found: list[registry.Kind] = [one for one, names in known.items() if name in names]
    if not found:
        raise unknown_name(kind or "plug-in", name, {n for names in known.values() for n in names})
    return found
