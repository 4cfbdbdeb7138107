"""What a record says of a cell beside its results: its pool, warnings, and the command for it."""

from __future__ import annotations

from bench import registry
from bench.contract import Pool
from bench.execute.machine import describe_environment
from bench.results.record import PoolSummary
from bench.suites.cell import Cell, PoolChoice

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""


def summarise_pool(pool: Pool, imported: PoolChoice | None = None) -> PoolSummary:
    """Return the record's summary of a pool."""
    kinds = [teacher.spec.architecture for teacher in pool]
    return PoolSummary(
        name=imported.name if imported else None,
        sha256=pool.sha256,
        n=len(pool),
        mean_accuracy=pool.mean_accuracy,
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        teachers=[
            {
                "name": teacher.name,
                "dataset": teacher.dataset,
                "architecture": teacher.spec.architecture,
                "image_size": teacher.spec.image_size,
                "classes": list(teacher.class_names),
                "accuracy": teacher.accuracy,
                "sha256": teacher.sha256,
                "code": teacher.code,
                "threads": teacher.threads,
            }
            for teacher in pool
        ],
    )


def warnings_of(cell: Cell) -> list[str]:
    """Return the warnings of the record."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
    if share := cell.protocol.untrustworthy_share:
        deceit = cell.protocol.untrustworthy_kind
        found.append(f"{share:.0%} of the teachers are untrustworthy on purpose ({deceit})")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def command_for(cell: Cell, command: str) -> str:
    """Return a command that re-runs this cell and its siblings."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"
