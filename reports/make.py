"""Everything a report consists of, made from records once and written to one folder."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import StoredRecord, write_text
from reports.families import Family, hazard_families
from reports.frame import record_row
from reports.groups import Group, make_groups
from reports.hazards import hazard_rows, hazards_table
from reports.memo import Memo
from reports.model import Table
from reports.overview import overview_tables
from reports.render import csv_text, latex, markdown
from reports.summary import summary_rows
from reports.tables import group_tables, shown_groups

MARKDOWN, LATEX, CSV = "tables.md", "tables.tex", "results.csv"
SUMMARY, HAZARDS = "summary.csv", "hazards.csv"
PAGE, FIGURES = "report.html", "figures"
MEMO = ".resampled.json"


@dataclass(frozen=True)
class Report:
    """What some records say: groups, families of choices, tables, a row for each record.

    `shown` are the groups that no table of hazards holds already; `tables` are theirs, in order.
    """

    groups: list[Group]
    shown: list[Group]
    families: list[Family]
    overview: list[Table]
    tables: list[list[Table]]
    hazards: list[Table]
    rows: list[dict[str, Any]]
    memo: Memo

    @property
    def all_tables(self) -> list[Table]:
        """The tables one after another."""
        inner = [table for tables in self.tables for table in tables]
        return [*self.overview, *inner, *self.hazards]


def compute(stored: Sequence[StoredRecord], memo: Memo | None = None) -> Report:
    """Compute every number of a report.

    Raises:
        BenchError: a task table that cannot be read.
    """
    memo = memo or Memo()
    groups = make_groups(stored, memo)
    families = hazard_families(stored)
    shown = shown_groups(groups, families)
    return Report(
        groups=groups,
        shown=shown,
        families=families,
        overview=overview_tables(shown),
        tables=[group_tables(group) for group in shown],
        hazards=[hazards_table(family) for family in families],
        rows=[record_row(one, memo) for one in stored],
        memo=memo,
    )


def write_report(report: Report, folder: Path, figures: bool = True) -> list[Path]:
    """Write tables, figures and page into a folder and return the paths to name to a reader.

    Args:
        report: what to write.
        folder: where; made where it is not there.
        figures: False leaves the drawing out, and the page without figures.
    """
    summary = [row for group in report.groups for row in summary_rows(group)]
    texts = {
        MARKDOWN: markdown(report.all_tables),
        LATEX: latex(report.all_tables),
        CSV: csv_text(report.rows),
    }
    if summary:
        texts[SUMMARY] = csv_text(summary)
    if choices := [row for family in report.families for row in hazard_rows(family)]:
        texts[HAZARDS] = csv_text(choices)
    texts[PAGE] = _page(report, folder, figures)
    for name, text in texts.items():
        write_text(folder / name, text)
    report.memo.save()
    return [folder / name for name in texts] + [folder / FIGURES] * figures


def _page(report: Report, folder: Path, figures: bool) -> str:
    from reports.page.content import Part, Picture, picture, short_name, slug
    from reports.page.render import render_page

    def pictures(drawings: Sequence[Any], key: str) -> list[Picture]:
        from reports.figures.drawing import write_drawing

        gc.freeze()  # else each collection of a drawn figure walks through all records again
        try:
            return [
                picture(one, write_drawing(folder / FIGURES, one, key)[0].read_bytes())
                for one in drawings
            ]
        finally:
            gc.unfreeze()

    parts, across = [], []
    for group, tables in zip(report.shown, report.tables, strict=True):
        name = slug(group, report.shown)
        shown = []
        if figures:
            from reports.figures.build import group_drawings
            from reports.figures.drawing import drawing_key

            shown = pictures(group_drawings(group, name), drawing_key([group]))
        parts.append(Part(name, short_name(group), group.name, tables, shown))
    if figures:
        from reports.figures.build import across_drawings
        from reports.figures.drawing import drawing_key

        across = pictures(across_drawings(report.shown), drawing_key(report.shown))
    return render_page(report, parts, across)
