"""`bench list`: what can be named."""

from __future__ import annotations

import json
from typing import Any

import click

from bench.cli.folding import print_folded
from bench.cli.options import json_option

KINDS = (
    *("methods", "learners", "nets", "datasets", "calibrations"),
    *("protocols", "budgets", "suites", "tables", "figures"),
)
_SHOWN = ("knowledge", "learners", "offers", "teachers", "image_size", "budget", "datasets")
"""What a list shows below a description, beside the distribution."""


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@json_option
def list_names(kind: str, as_json: bool) -> None:
    """List what can be named, each with one line of description."""
    from bench.execute.machine import loading
    from bench.suites.catalogue import names_of, summary

    singular: Any = kind.removesuffix("s")
    with loading():
        rows = [summary(singular, name) for name in names_of(singular)]
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        click.echo(row["name"])
        for text in filter(None, (row["description"], " · ".join(_facts(row)))):
            print_folded(text, indent=4)


def _facts(row: dict[str, Any]) -> list[str]:
    """Return in words what a row says beside name and description."""
    facts = []
    for name in _SHOWN:
        value = row.get(name)
        if value:
            words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            facts.append(f"{name.replace('_', ' ')} {words}")
    return [*facts, row["distribution"]]
