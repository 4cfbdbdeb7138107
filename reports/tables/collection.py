"""The computed content of a report: groups, tables, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.results.frame import record_row
from bench.results.memo import Memo
from bench.results.store import StoredRecord
from reports.offered import LeaveOut, offered_tables, warn
from reports.rows.families import Family, hazard_families
from reports.rows.groups import Group, make_groups
from reports.tables.build import group_tables, shown_groups
from reports.tables.hazards import hazards_table
from reports.tables.hours import hours_tables
from reports.tables.overview import overview_tables
from reports.tables.table import Table


@dataclass(frozen=True)
class Report:
    """What some records say: groups, families of choices, tables, a row for each record.

    `shown` are the groups that no table of hazards holds already; `tables` are theirs, in order.
    `offered` are the tables of other packages.
    """

    groups: list[Group]
    shown: list[Group]
    families: list[Family]
    overview: list[Table]
    tables: list[list[Table]]
    hazards: list[Table]
    hours: list[Table]
    offered: list[Table]
    rows: list[dict[str, Any]]
    memo: Memo

    @property
    def all_tables(self) -> list[Table]:
        """The tables one after another."""
        inner = [table for tables in self.tables for table in tables]
        return [*self.overview, *inner, *self.hazards, *self.hours, *self.offered]


def compute(
    stored: Sequence[StoredRecord], memo: Memo | None = None, leave_out: LeaveOut = warn
) -> Report:
    """Compute every number of a report.

    Args:
        stored: records, one for each cell.
        memo: remembers resampled intervals.
        leave_out: told of each table of another package that failed.

    Raises:
        BenchError: a damaged table of tasks; `load_records` leaves such records out.
    """
    memo = memo or Memo()
    groups = make_groups(stored, memo)
    families = hazard_families(stored)
    shown = shown_groups(groups, families)
    rows = [record_row(one, memo) for one in stored]
    return Report(
        groups=groups,
        shown=shown,
        families=families,
        overview=overview_tables(shown),
        tables=[group_tables(group) for group in shown],
        hazards=[hazards_table(family) for family in families],
        hours=hours_tables(stored),
        offered=offered_tables(rows, leave_out),
        rows=rows,
        memo=memo,
    )
