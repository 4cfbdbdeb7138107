"""A plan as rows and as a table."""

from __future__ import annotations

from typing import Any

from bench.plan import Plan
from bench.run import Request, cell_status


def plan_rows(plan: Plan, request: Request) -> list[dict[str, Any]]:
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


def _estimate(plan: Plan, request: Request, cell: Any, seen: set[str]) -> dict[str, Any]:
    from bench import registry
    from bench.estimate import (
        TeacherCost,
        device_rate,
        estimate_cell,
        macs_per_image,
        teacher_costs,
    )
    from bench.execute.cell import plan_teachers
    from bench.records import content_hash
    from bench.runtime import choose_device
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
        costs = [TeacherCost(macs_per_image(one.spec), len(one.class_names)) for one in cards]
        stored = [True] * len(costs)
    rate = device_rate(choose_device(request.device), request.cache)
    estimate = estimate_cell(cell, data, costs, rate)
    shared = {k: getattr(cell, k) for k in sorted(method.fit_depends_on)}
    protocol = cell.protocol.model_dump(mode="json")
    fit = content_hash(
        [cell.method, cell.method_identity(), cell.seed, cell.datasets, shared, protocol]
    )
    training = {"recipe": {"checkpoint"}}  # one training gives both checkpoints
    pool = content_hash([one.model_dump(mode="json", exclude=training) for one in teachers])
    seconds = estimate.test_s
    seconds += 0 if fit in seen else estimate.fit_s
    seconds += 0 if pool in seen else estimate.pool_s
    seen.update((fit, pool))
    return {
        "teachers": len(costs),
        "teachers_stored": sum(stored),
        "seconds": round(seconds, 1),
        "memory_bytes": estimate.memory_bytes,
    }


def print_plan(plan: Plan, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, with the sum below."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{plan.suite.name}: {plan.suite.title}", box=None, pad_edge=False)
    for name in ("method", "learner", "setting", "status", "teachers", "time", "memory"):
        justify = "right" if name in ("teachers", "time", "memory") else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        preset = "" if row["preset"] == "released" else f" ({row['preset']})"
        shape = f"{row['n_way']}w{row['k_shot']}s seed {row['seed']}"
        setting = f"{row['scenario']} {'+'.join(row['test_datasets'])} {shape}"
        setting += f"\n{row['variant']}" if row["variant"] else ""
        teachers = f"{row['teachers_stored']}/{row['teachers']}" if row["teachers"] else "–"
        memory = f"{row['memory_bytes'] / 2**30:.1f} GB" if row["memory_bytes"] else "–"
        table.add_row(
            row["method"] + preset,
            row["learner"] + ("" if row["calibration"] == "none" else f" + {row['calibration']}"),
            setting,
            row["status"],
            teachers,
            duration(row["seconds"]),
            memory,
        )
    console.print(table)
    total = sum(row["seconds"] or 0 for row in rows)
    finished = sum(row["status"] in ("done", "skipped") for row in rows)
    console.print(
        f"{len(rows)} cells, {finished} finished; about {duration(total)} to go "
        "(estimated from multiply-accumulates; teachers: stored/needed)"
    )
    for name, reason in plan.missing.items():
        console.print(f"{name}: {reason}", markup=False, soft_wrap=True)


def duration(seconds: float | None) -> str:
    """Return seconds as `40 s`, `12 min` or `3.5 h`; `–` for None."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
