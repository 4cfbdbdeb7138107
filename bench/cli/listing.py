"""`bench list`: the names of methods, data sets, suites and other plug-ins."""

from __future__ import annotations

import json

import click

from bench.cli.options import json_option


@click.command("list")
@click.argument(
    "kind",
    type=click.Choice(["methods", "datasets", "suites", "learners", "calibrations", "nets"]),
)
@json_option
def list_names(kind: str, as_json: bool) -> None:
    """List the names of methods, data sets, suites, learners, calibrations or networks."""
    from bench import registry
    from bench.suites.files import suite_names
    from bench.suites.suite import read_suite

    if kind == "suites":
        rows = {name: read_suite(name)[0].title for name in suite_names()}
    else:
        rows = {n: registry.entry(kind[:-1], n).value for n in registry.names(kind[:-1])}
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        click.echo(f"{name:<{width}}  {text}")
