"""All tables of a set of records, group after group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.errors import unknown_name
from bench.records import StoredRecord
from reports.accuracy import accuracy_table
from reports.cost import cost_table, pools_table
from reports.groups import Group, make_groups
from reports.model import Table
from reports.paired import paired_table

KINDS: dict[str, Callable[[Group], Table | None]] = {
    "accuracy": accuracy_table,
    "paired": paired_table,
    "cost": cost_table,
    "pools": pools_table,
}


def build_tables(stored: Sequence[StoredRecord], kinds: Sequence[str] = ()) -> list[Table]:
    """Return the tables of all groups.

    Args:
        stored: records, one for each cell.
        kinds: which of `KINDS`, in their order; none names all.

    Raises:
        BenchError: an unknown kind, or a task table that cannot be read.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("table", kind, KINDS)
    tables = [
        KINDS[kind](group) for group in make_groups(stored) for kind in (kinds or tuple(KINDS))
    ]
    return [table for table in tables if table is not None]
