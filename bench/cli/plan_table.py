"""A plan as rows and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.cli.folding import columns, print_folded
from bench.errors import counted
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.status import statuses
from bench.results.store import FINAL

if TYPE_CHECKING:
    from rich.console import Console

    from bench.execute.estimate import Estimator

COLUMNS = ("method", "learner", "data", "shape", "seed", "status", "stored", "time", "memory")
NUMBERS = ("stored", "time", "memory")
WRAPS = ("method", "learner", "data")


def plan_rows(plan: ResolvedSuite, request: Request) -> list[dict[str, Any]]:
    """Return one row per cell: settings, hash, status, estimated time and memory.

    Seconds of a teacher and of a shared fit are counted once, at the first cell that needs them.
    Where data is missing they go by its published counts. Estimates are None for cells that are
    finished, where there are no such counts, and where nothing like the cell was ever timed.
    """
    estimator: Estimator | None = None
    rows = []
    for cell, state in zip(plan.cells, statuses(plan, request), strict=True):
        status = state.name
        row: dict[str, Any] = {
            "cell": state.folder.name,
            "method": cell.method,
            "preset": cell.preset,
            "learner": cell.learner,
            "calibration": cell.calibration,
            "scenario": cell.scenario,
            "datasets": list(cell.datasets),
            "test_datasets": list(cell.tested),
            "pool": cell.pool.name if cell.pool else None,
            "n_way": cell.n_way,
            "k_shot": cell.k_shot,
            "seed": cell.seed,
            "protocol": cell.protocol.name,
            "variant": cell.variant,
            "apart": cell.apart,
            "status": status,
            "teachers_stored": None,
            "teachers": None,
            "seconds": None,
            "memory_bytes": None,
        }
        if not state.is_finished:
            if estimator is None:
                from bench.execute.estimate import estimator_for

                estimator = estimator_for(plan, request)
            row |= estimator.estimate(cell)
        rows.append(row)
    return rows


def print_plan(plan: ResolvedSuite, request: Request, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, with the sum below."""
    from rich.console import Console

    print_folded(f"{plan.suite.name}: {plan.suite.title}")
    print_cells([_shown(row) for row in rows], Console(width=columns()))
    for text in (*_sum(plan, request, rows), _LEGEND):
        print_folded(text)
    for name, reason in plan.missing.items():
        print_folded(f"{name}: {reason}")


def print_cells(cells: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print cells in words as a table, of which only `WRAPS` are ever broken.

    They are broken between words, where the console is wide enough for each word.
    """
    shown = [dict(zip(COLUMNS, COLUMNS, strict=True)), *cells]
    widths = {name: max(len(one[name]) for one in shown) for name in COLUMNS}
    whole = "\n" not in "".join(one["method"] for one in cells)
    if whole and sum(widths.values()) + len(COLUMNS) - 1 <= console.width:
        header, *lines = (_line(one, widths) for one in shown)
        console.print(header, style="bold", markup=False, highlight=False, soft_wrap=True)
        for line in lines:  # a table of rich's takes milliseconds a row
            console.file.write(f"{line}\n")
        return
    from rich.table import Table

    words = {name: [word for one in shown for word in one[name].split()] for name in WRAPS}
    least = widths | {name: max(map(len, found)) for name, found in words.items()}
    fits = sum(least.values()) + len(COLUMNS) - 1 <= console.width
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        justify: Literal["left", "right"] = "right" if name in NUMBERS else "left"
        table.add_column(
            name,
            justify=justify,
            no_wrap=name not in WRAPS,
            overflow="fold",
            min_width=least[name] if fits else None,
        )
    for one in cells:
        table.add_row(*(one[name] for name in COLUMNS))
    console.print(table)


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    """Return the columns side by side."""
    return " ".join(
        cells[name].rjust(widths[name]) if name in NUMBERS else cells[name].ljust(widths[name])
        for name in COLUMNS
    )


def _sum(plan: ResolvedSuite, request: Request, rows: list[dict[str, Any]]) -> list[str]:
    """Say what is finished, how long the rest will take, and in how many processes a run does it.

    The last by the rule that the run goes by.
    """
    finished = sum(row["status"] in FINAL for row in rows)
    unknown = sum(map(_is_unknown, rows))
    total = duration(sum(row["seconds"] or 0 for row in rows))
    more = f" and {counted(unknown, 'cell')} of unknown time" if unknown else ""
    text = (
        f"{counted(len(rows), 'cell')}, {finished} finished or skipped; about {total}{more} to go"
    )
    done = (*FINAL, "missing data")
    todo = [cell for cell, row in zip(plan.cells, rows, strict=True) if row["status"] not in done]
    if not todo:
        return [text]
    from bench.execute.capacity import capacity

    return [f"{text} in one process", f"a run takes {capacity(plan, todo, request).text}"]


_LEGEND = "time: from measured times of cells like it; stored: teachers there of those needed"


def _is_unknown(row: dict[str, Any]) -> bool:
    """Tell whether a cell is still to be run and no similar cell was ever timed."""
    return row["status"] not in FINAL and row["seconds"] is None


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row's cells in words, short enough for a line of 100 columns."""
    preset = "" if row["preset"] == "released" else f" ({row['preset']})"
    calibration = "" if row["calibration"] == "none" else f" + {row['calibration']}"
    together = len(row["test_datasets"]) > 1
    tested = f"all {len(row['datasets'])}" if together else row["test_datasets"][0]
    memory = f"{row['memory_bytes'] / 2**30:.1f} GB" if row["memory_bytes"] else "–"
    return {
        "method": "\n".join(
            filter(None, (f"{row['method']}{preset}", row["variant"], row["apart"]))
        ),
        "learner": row["learner"] + calibration,
        "data": f"{row['scenario']} {tested}",
        "shape": f"{row['n_way']}w{row['k_shot']}s",
        "seed": str(row["seed"]),
        "status": "no data" if row["status"] == "missing data" else row["status"],
        "stored": f"{row['teachers_stored']}/{row['teachers']}" if row["teachers"] else "–",
        "time": "unknown" if _is_unknown(row) else duration(row["seconds"]),
        "memory": memory,
    }


def duration(seconds: float | None) -> str:
    """Return seconds as `40 s`, `12 min` or `3.5 h`; `–` for None."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
