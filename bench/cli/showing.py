"""`bench show`: what a name stands for, and the settings that are in force in a cell."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bench import registry
from bench.cli.options import json_option, named_suite_options, resolve
from bench.errors import BenchError, unknown_name

if TYPE_CHECKING:
    from bench.execute.plan import ResolvedSuite
    from bench.suites.cell import Cell
    from bench.suites.explain import Setting

WIDTH = 100
KINDS = (
    *("suite", "method", "learner", "net", "dataset", "calibration"),
    *("protocol", "budget", "table", "figure"),
)
_ABOVE = ("name", "kind", "description", "docstring", "settings", "methods", "changes", "counts")
"""What a page shows in a place of its own, or not at all."""


@click.command()
@named_suite_options
@click.option("--kind", type=click.Choice(KINDS), help="Of the name.  [default: suite, if it is]")
@click.option("--cell", metavar="HASH", help="Show the settings of one cell; a prefix will do.")
@json_option
def show(kind: registry.Kind | None, cell: str | None, as_json: bool, **options: Any) -> None:
    """Show a method, suite, protocol or other name: its settings, or the cells of a suite.

    With --cell, show every setting that is in force in a cell of a suite, and where it comes from.
    """
    name = options["suite"]
    found = _kind_of(name, kind)
    if found == "suite":
        _show_suite(options, cell, as_json)
        return
    if cell is not None:
        raise BenchError(f"--cell belongs to a suite, and '{name}' is a {found}; name a suite")
    from bench.suites.catalogue import page

    row = page(found, name)
    click.echo(json.dumps(row, indent=1, default=str) if as_json else _page(row))


def _kind_of(name: str, kind: registry.Kind | None) -> registry.Kind:
    """Return the kind that a name is of: as asked for, else a suite before others.

    Raises:
        BenchError: nothing carries the name.
    """
    from bench.suites.catalogue import names_of

    if name.endswith((".yaml", ".yml")):
        return "suite"
    kinds: list[Any] = [one for one in KINDS if kind in (None, one)]
    for one in kinds:
        if name in names_of(one):
            return one
    raise unknown_name(kind or "name", name, {n for one in kinds for n in names_of(one)})


def _show_suite(options: dict[str, Any], cell: str | None, as_json: bool) -> None:
    name, settings = options["suite"], list(options["settings"])
    resolved, _ = resolve(options, quiet=as_json)
    if cell is None:
        rows = [{"cell_hash": _hash(resolved, one), "label": one.label} for one in resolved.cells]
        if as_json:
            suite = resolved.suite.model_dump(mode="json")
            click.echo(json.dumps({**suite, "cells": rows}, indent=1))
            return
        click.echo(f"{resolved.suite.name}: {resolved.suite.title}\n")
        for row in rows:
            click.echo(f"{row['cell_hash'] or 'no data yet':<18}{row['label']}")
        click.echo(f"\none cell's settings: bench show {name} --cell HASH")
        return
    chosen = _chosen(resolved, cell, name)
    found = _explained(chosen, resolved, name, settings)
    if as_json:
        rows = [setting.row() for setting in found]
        content = {"cell_hash": _hash(resolved, chosen), "label": chosen.label, "settings": rows}
        click.echo(json.dumps(content, indent=1, default=str))
        return
    click.echo(f"{_hash(resolved, chosen)}  {chosen.label}\n")
    for setting in found:
        click.echo(_line(setting, max(len(one.name) for one in found)))


def _hash(resolved: ResolvedSuite, cell: Cell) -> str | None:
    """Return a cell's hash; None where its data is not there to be hashed."""
    known = all(name in resolved.digests for name in cell.datasets)
    return cell.hash(resolved.digests) if known else None


def _chosen(resolved: ResolvedSuite, prefix: str, name: str) -> Cell:
    """Return the one cell whose hash begins with a prefix, of a suite by the name it was given by.

    Raises:
        BenchError: none does, or several.
    """
    found = [c for c in resolved.cells if (_hash(resolved, c) or "").startswith(prefix)]
    if len(found) == 1:
        return found[0]
    few = ", ".join(str(_hash(resolved, one)) for one in found[:3])
    known = f"begins {len(found)} cells ({few}…)" if found else f"begins no cell of suite '{name}'"
    raise BenchError(f"--cell '{prefix}' {known}; the hashes are in bench show {shlex.quote(name)}")


def _explained(
    cell: Cell, resolved: ResolvedSuite, name: str, settings: Sequence[str]
) -> list[Setting]:
    from bench.suites.explain import explain
    from bench.suites.suite import read_suite

    _, overrides = read_suite(name, settings)
    return explain(cell, resolved.suite, overrides, settings)


def _line(setting: Setting, width: int) -> str:
    """Return a setting on one line, its name in so many columns, with what it overrules."""
    over = "; ".join(f"{origin}: {_value(value)}" for origin, value in setting.overruled)
    text = f"{setting.name:<{width}}  {_value(setting.value):<20} {setting.origin}"
    return text + (f" (over {over})" if over else "")


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _page(row: dict[str, Any]) -> str:
    """Return a plug-in's page as text."""
    text = row.get("docstring") or textwrap.fill(row["description"], WIDTH)
    lines = [f"{row['kind']} {row['name']}", "", text, ""]
    for name, value in row.items():
        if name not in _ABOVE and value:
            lines.append(f"{name.replace('_', ' '):<14}{_value(value)}")
    if row.get("settings"):
        lines.append(f"{'settings':<14}value (elsewhere, where that differs)")
    for setting in row.get("settings", ()):
        source = f" Source: {setting['source']}." if setting["source"] else ""
        text = textwrap.fill(setting["meaning"] + source, WIDTH - 4)
        lines += ["", _head(setting), textwrap.indent(text, "    ")]
    return "\n".join(lines).rstrip()


def _head(setting: dict[str, Any]) -> str:
    """Return a setting's name and value, or default, and those that it has elsewhere."""
    main = "value" if "value" in setting else "default"
    known = ("name", "meaning", "unit", "source", main)
    others = {k: v for k, v in setting.items() if k not in known and v != setting[main]}
    unit = f" {setting['unit']}" if setting["unit"] else ""
    text = f"{setting['name']} = {_value(setting[main])}{unit}"
    words = [f"{name} {_value(value)}" for name, value in others.items()]
    return f"{text}   ({'; '.join(words)})" if words else text
