"""All tables of a set of records, group after group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.errors import unknown_name
from bench.records import StoredRecord
from reports.accuracy import accuracy_table
from reports.cost import cost_table, pools_table
from reports.groups import Group, make_groups
from reports.hazards import hazard_families, hazards_table
from reports.model import Table
from reports.paired import paired_table

KINDS: dict[str, Callable[[Group], Table | None]] = {
    "accuracy": accuracy_table,
    "paired": paired_table,
    "cost": cost_table,
    "pools": pools_table,
}


HAZARDS = "hazards"


def build_tables(stored: Sequence[StoredRecord], kinds: Sequence[str] = ()) -> list[Table]:
    """Return the tables of all groups, then what each choice is worth.

    Args:
        stored: records, one for each cell.
        kinds: which of `KINDS`, in their order, and `hazards`; none names all, but leaves out the
            groups all of whose records a table of hazards holds already.

    Raises:
        BenchError: an unknown kind, or a task table that cannot be read.
    """
    for kind in kinds:
        if kind not in (*KINDS, HAZARDS):
            raise unknown_name("table", kind, [*KINDS, HAZARDS])
    families = hazard_families(stored)
    held = {one.record.cell_hash for family in families for part in family.stored for one in part}
    tables = [
        KINDS[kind](group)
        for group in make_groups(stored)
        if kinds or not {one.record.cell_hash for one in group.stored} <= held
        for kind in (kinds or tuple(KINDS))
        if kind != HAZARDS
    ]
    if not kinds or HAZARDS in kinds:
        tables += [hazards_table(family) for family in families]
    return [table for table in tables if table is not None]
