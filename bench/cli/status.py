"""`bench status`: what runs below a folder, how far it is, since when, and what is left."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from bench.cli.folding import print_folded
from bench.cli.options import json_option
from bench.errors import BenchError
from bench.paths import UserPath


@click.command()
@click.argument("runs", type=UserPath(), default=Path("runs"))
@json_option
def status(runs: Path, as_json: bool) -> None:
    """Show what runs in RUNS, how far it is, since when, and what is left.

    It reads small files that runs keep, and disturbs none of them. A cell whose process is gone is
    stopped: the same command again goes on from its last checkpoint.
    """
    if not runs.is_dir():
        raise BenchError(f"'{runs}' is no folder; name the one that bench run --runs names")
    rows = list(_rows(runs))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        print_folded(row["text"], row["state"], STATE)
    if not rows:
        click.echo(f"nothing runs in {runs}, and nothing was stopped there")


def _rows(runs: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each run that was announced, then one for each cell that was begun."""
    from bench.execute.progress import PROGRESS, RUN_FILES, holder, read

    for path in sorted(runs.rglob(RUN_FILES)):
        if (run := read(path)) is not None:
            yield _run_row(path.parent, run, _STATES[holder(run)])
    for path in sorted(runs.rglob(PROGRESS)):
        if (cell := read(path)) is not None:
            yield _cell_row(path.parent, cell, _STATES[holder(cell)])


STATE = 10
"""Columns of the word that says whether something runs."""
_STATES = {"there": "running", "gone": "stopped", "elsewhere": "elsewhere"}


def _run_row(folder: Path, run: Mapping[str, Any], state: str) -> dict[str, Any]:
    from bench.results.store import FINAL, cell_state

    states = [cell_state(folder / name).name for name in run["cells"]]
    finished = sum(one in FINAL for one in states)
    text = (
        f"{folder}: {finished} of {len(states)} cells are finished, "
        f"{len(states) - finished} left; since {_clock(run['started'])}, {_where(run)}: "
        f"{run['command']}"
    )
    left = [
        label for label, one in zip(run["cells"].values(), states, strict=True) if one not in FINAL
    ]
    return {"kind": "run", "state": state, "text": text, "folder": str(folder), "left": left} | {
        key: run[key] for key in ("command", "started", "host", "pid")
    }


def _cell_row(folder: Path, cell: Mapping[str, Any], state: str) -> dict[str, Any]:
    from bench.execute.progress import duration, standing_of

    standing = standing_of(cell)
    heard = f"heard of {duration(max(0.0, time.time() - cell['updated']))} ago"
    text = (
        f"{cell['label']}: {standing.text}; since {_clock(cell['started'])}, {heard}, "
        f"{_where(cell)}"
    )
    if state == "stopped":
        text += "; goes on when the same command is run again"
    keys = ("label", "started", "updated", "host", "pid", "stage", "done", "total", "rate")
    return {"kind": "cell", "state": state, "text": text, "folder": str(folder)} | {
        **{key: cell[key] for key in (*keys, "validation")},
        "seconds_left": standing.seconds_left,
    }


def _where(facts: Mapping[str, Any]) -> str:
    return f"process {facts['pid']} on {facts['host']}"


def _clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
