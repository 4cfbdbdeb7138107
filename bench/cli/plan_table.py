"""A plan as rows and as a table."""

from __future__ import annotations

import os
from typing import Any

from bench import registry
from bench.execute.plan import ResolvedSuite
from bench.execute.run import Request, cell_status
from bench.results.files import content_hash
from bench.suites.cell import Cell

WIDTH = 100
"""Columns of a plan that goes to a file or a pipe."""

COLUMNS = ("method", "learner", "data", "shape", "seed", "status", "stored", "time", "memory")


def plan_rows(plan: ResolvedSuite, request: Request) -> list[dict[str, Any]]:
    """Return a row a cell: what it is, its hash and status, and what it is estimated to take.

    Seconds of a pool and of a shared fit are counted once, at the first cell that needs them;
    estimates are None for cells that are finished. Where data is missing they go by its published
    counts, and are None where there are none.
    """
    seen: set[str] = set()
    rows = []
    for cell in plan.cells:
        status = cell_status(plan, request.runs, cell)
        row: dict[str, Any] = {
            "cell": cell.hash(plan.digests),
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
            "status": status,
            "teachers_stored": None,
            "teachers": None,
            "seconds": None,
            "memory_bytes": None,
        }
        if status in ("to do", "started", "failed", "missing data"):
            row |= _estimate(plan, request, cell, seen)
        rows.append(row)
    return rows


def _estimate(plan: ResolvedSuite, request: Request, cell: Cell, seen: set[str]) -> dict[str, Any]:
    from bench.execute.estimate import PassTimes, TeacherCost, estimate_cell, teacher_costs
    from bench.execute.machine import use_device
    from bench.execute.scenario import plan_teachers, refused_by_plan
    from bench.teachers.cards import pool_cards
    from bench.teachers.store import is_stored

    data = {**plan.nominal, **plan.data}
    if not set(cell.datasets) <= set(data):
        return {}
    method = registry.load("method", cell.method)
    teachers = plan_teachers(cell, data) if method.uses_pool else []
    stored = [is_stored(request.cache, teacher) for teacher in teachers]
    costs = teacher_costs(teachers, stored, data)
    if cell.pool is not None and method.uses_pool:
        cards = pool_cards(request.cache, cell.pool.name)
        costs = [TeacherCost(one.spec, len(one.class_names)) for one in cards]
        stored = [True] * len(costs)
    counts = {"teachers": len(costs), "teachers_stored": sum(stored)}
    if refused_by_plan(method, cell):
        return counts | {"status": "skipped", "seconds": 0.0}
    estimate = estimate_cell(
        cell, data, costs, PassTimes(use_device(request.device), request.cache)
    )
    fit, test, pool = _shared(cell, method, teachers)
    embedded = {f"{test} {name}": value for name, value in estimate.embedding_s.items()}
    seconds = estimate.test_s + sum(value for key, value in embedded.items() if key not in seen)
    seconds += 0 if fit in seen else estimate.fit_s
    seconds += 0 if pool in seen else estimate.pool_s
    seen.update((fit, pool, *embedded))
    return counts | {"seconds": round(seconds, 1), "memory_bytes": estimate.memory_bytes}


def _shared(cell: Cell, method: Any, teachers: list[Any]) -> tuple[str, str, str]:
    """Return what names a cell's fit, embeddings and pool; cells that agree share them."""
    training = {"recipe": {"checkpoint"}}  # one training gives both checkpoints
    pool = [one.model_dump(mode="json", exclude=training) for one in teachers]
    shared = {k: getattr(cell, k) for k in sorted(method.fit_depends_on)}
    constants = [one.model_dump(mode="json") for one in (cell.protocol, cell.budget)]
    fit = [cell.method, cell.method_config, cell.seed, cell.datasets, shared, constants, pool]
    test = [fit, cell.learner, cell.calibration]
    return content_hash(fit), content_hash(test), content_hash(pool)


def print_plan(plan: ResolvedSuite, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, with the sum below; 100 columns wide where not on a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        justify = "right" if name in ("stored", "time", "memory") else "left"
        wraps = name in ("method", "data")
        table.add_column(name, justify=justify, no_wrap=not wraps, overflow="fold")
    for row in rows:
        cells = _shown(row)
        table.add_row(*(cells[name] for name in COLUMNS))
    console.print(f"{plan.suite.name}: {plan.suite.title}", markup=False, soft_wrap=True)
    console.print(table)
    total = sum(row["seconds"] or 0 for row in rows)
    finished = sum(row["status"] in ("done", "skipped") for row in rows)
    console.print(
        f"{len(rows)} cells, {finished} finished or skipped; about {duration(total)} to go\n"
        "time: from a measured pass of each network; stored: teachers there of those needed",
        soft_wrap=True,
    )
    for name, reason in plan.missing.items():
        console.print(f"{name}: {reason}", markup=False, soft_wrap=True)


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row's cells in words, short enough for a line of `WIDTH`."""
    preset = "" if row["preset"] == "released" else f" ({row['preset']})"
    calibration = "" if row["calibration"] == "none" else f" + {row['calibration']}"
    together = len(row["test_datasets"]) > 1
    tested = f"all {len(row['datasets'])}" if together else row["test_datasets"][0]
    memory = f"{row['memory_bytes'] / 2**30:.1f} GB" if row["memory_bytes"] else "–"
    return {
        "method": "\n".join(filter(None, (f"{row['method']}{preset}", row["variant"]))),
        "learner": row["learner"] + calibration,
        "data": f"{row['scenario']} {tested}",
        "shape": f"{row['n_way']}w{row['k_shot']}s",
        "seed": str(row["seed"]),
        "status": {"missing data": "no data"}.get(row["status"], row["status"]),
        "stored": f"{row['teachers_stored']}/{row['teachers']}" if row["teachers"] else "–",
        "time": duration(row["seconds"]),
        "memory": memory,
    }


def duration(seconds: float | None) -> str:
    """Return seconds as `40 s`, `12 min` or `3.5 h`; `–` for None."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
