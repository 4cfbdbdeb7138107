"""All tables of a set of records, by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench import registry
from bench.errors import BenchError, unknown_name
from bench.results.frame import record_row
from bench.results.memo import Memo
from bench.results.store import StoredRecord
from reports.offered import offered_tables
from reports.rows.families import Family, hazard_families
from reports.rows.groups import Group, make_groups
from reports.tables.accuracy import accuracy_table
from reports.tables.agreement import agreement_table
from reports.tables.claims import KINDS as CLAIMS
from reports.tables.claims import claims_tables
from reports.tables.confidence import confidence_table
from reports.tables.cost import cost_table
from reports.tables.hazards import hazards_table
from reports.tables.hours import hours_tables
from reports.tables.overview import overview_tables
from reports.tables.paired import paired_table
from reports.tables.pools import pools_table, teachers_table
from reports.tables.reproduction import reproduction_table
from reports.tables.table import Table

KINDS: dict[str, Callable[[Group], Table | None]] = {
    "accuracy": accuracy_table,
    "paired": paired_table,
    "agreement": agreement_table,
    "confidence": confidence_table,
    "cost": cost_table,
    "pools": pools_table,
    "teachers": teachers_table,
    "reproduction": reproduction_table,
}

OVERVIEW, HAZARDS, HOURS = "overview", "hazards", "hours"
"""Kinds that are made of all records together: the first comes first, the others last but for
those of `reports.tables.claims`."""


def build_tables(
    stored: Sequence[StoredRecord], kinds: Sequence[str] = (), memo: Memo | None = None
) -> list[Table]:
    """Return the table over all groups, those of each group, and what each choice is worth.

    Args:
        stored: records, one for each cell.
        kinds: `overview`, names of `KINDS`, in their order, `hazards`, `hours`, those of the
            paper's claims, and those that other packages offer; none names all but the last three.
            The overview, and
            all where none is named, leave out the groups all of whose records a table of hazards
            holds already.
        memo: remembers resampled numbers from one call to the next.

    Raises:
        BenchError: an unknown kind, a damaged table of tasks, or a table of another package that
            failed.
    """
    offered = registry.names("table")
    known = (*KINDS, OVERVIEW, HAZARDS, HOURS, *CLAIMS, *offered)
    for kind in kinds:
        if kind not in known:
            raise unknown_name("table", kind, known)
    groups, families = make_groups(stored, memo), hazard_families(stored)
    inner = [kind for kind in kinds if kind in KINDS]
    rest = shown_groups(groups, families)
    tables = overview_tables(rest) if not kinds or OVERVIEW in kinds else []
    if inner or not kinds:
        asked = groups if kinds else rest
        tables += [table for group in asked for table in group_tables(group, inner)]
    if not kinds or HAZARDS in kinds:
        tables += [hazards_table(family) for family in families]
    if HOURS in kinds:
        tables += hours_tables(stored)
    if set(CLAIMS) & set(kinds):
        tables += claims_tables(stored, kinds)
    if named := [kind for kind in kinds if kind in offered]:
        tables += offered_tables([record_row(one) for one in stored], _refuse, named)
    return tables


def _refuse(line: str) -> None:
    raise BenchError(line)


def shown_groups(groups: Sequence[Group], families: Sequence[Family]) -> list[Group]:
    """Return the groups with a record that no table of hazards holds."""
    held = {one.record.cell_hash for family in families for part in family.stored for one in part}
    return [g for g in groups if not {one.record.cell_hash for one in g.stored} <= held]


def group_tables(group: Group, kinds: Sequence[str] = ()) -> list[Table]:
    """Return the tables of one group, of all kinds or of some."""
    tables = [KINDS[kind](group) for kind in (kinds or tuple(KINDS))]
    return [table for table in tables if table is not None]
