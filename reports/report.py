"""Writing a complete report: tables, figures and page in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.results.files import write_text
from reports.offered import LeaveOut, offered_drawings, offered_key, warn
from reports.tables.collection import Report
from reports.tables.hazards import hazard_rows
from reports.tables.summary import summary_rows
from reports.text.render import csv_text, latex, markdown

if TYPE_CHECKING:
    from reports.page.content import Picture

MARKDOWN, LATEX, CSV = "tables.md", "tables.tex", "results.csv"
SUMMARY, HAZARDS = "summary.csv", "hazards.csv"
PAGE, FIGURES = "report.html", "figures"
FORMATS = ("svg",)
"""Formats of figures that are drawn unless others are asked for; the page needs SVG."""
MEMO = ".resampled.json"


def write_report(
    report: Report, folder: Path, formats: Sequence[str] = FORMATS, leave_out: LeaveOut = warn
) -> list[Path]:
    """Write tables, figures and page into a folder and return the paths to name to a reader.

    Args:
        report: what to write.
        folder: where; made where it is not there.
        formats: of the figures, SVG first; none leaves the drawing out, and the page without them.
        leave_out: told of each figure of another package that failed.
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
    texts[PAGE] = _page(report, folder, formats, leave_out)
    for name, text in texts.items():
        write_text(folder / name, text)
    report.memo.save()
    return [folder / name for name in texts] + [folder / FIGURES] * bool(formats)


def _page(report: Report, folder: Path, formats: Sequence[str], leave_out: LeaveOut) -> str:
    from reports.page.content import Part, picture, short_name, slug
    from reports.page.render import render_page

    def pictures(drawings: Sequence[Any], key: str) -> list[Picture]:
        from reports.figures.drawing import write_drawings

        found = write_drawings(folder / FIGURES, drawings, key, formats)
        return [
            picture(one, paths[0].read_bytes()) for one, paths in zip(drawings, found, strict=True)
        ]

    parts, across, offered, hero = [], [], [], None
    for group, tables in zip(report.shown, report.tables, strict=True):
        name = slug(group, report.shown)
        shown = []
        if formats:
            from reports.figures.build import group_drawings
            from reports.figures.drawing import drawing_key

            shown = pictures(group_drawings(group, name), drawing_key([group]))
        parts.append(Part(name, short_name(group), group.name, tables, shown))
    if formats:
        from reports.figures.build import across_drawings
        from reports.figures.drawing import drawing_key

        hero = _hero(report, pictures)
        across = pictures(across_drawings(report.shown), drawing_key(report.shown))
        drawings = offered_drawings(report.rows, leave_out)
        offered = pictures(drawings, offered_key(report.rows, drawings))
    return render_page(report, parts, across, offered, hero)


def _hero(
    report: Report, pictures: Callable[[Sequence[Any], str], list[Picture]]
) -> Picture | None:
    """Return the page's first picture: of the group with the most cells; None without one."""
    from reports.figures.drawing import drawing_key
    from reports.figures.frontier import group_frontier
    from reports.page.content import compared, slug

    groups = compared(report.shown)
    largest = max(groups, key=lambda group: len(group.stored), default=None)
    drawing = group_frontier(largest, slug(largest, report.shown)) if largest else None
    return pictures([drawing], drawing_key([largest]))[0] if drawing and largest else None
