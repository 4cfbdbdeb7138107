"""Rendering of the page from one template, one style sheet and one script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results.store import StoredRecord
from reports.page import cells, content
from reports.page.content import Part, Picture

if TYPE_CHECKING:
    from jinja2 import Environment

    from reports.tables.collection import Report

FOLDER = Path(__file__).parent


def render_page(
    report: Report,
    parts: Sequence[Part],
    across: Sequence[Picture] = (),
    offered: Sequence[Picture] = (),
    hero: Picture | None = None,
    title: str = "Data-free meta-learning: results",
) -> str:
    """Return the page as one HTML text that needs nothing else.

    Args:
        report: what the records say.
        parts: tables and figures of the groups shown.
        across: figures over all groups.
        offered: figures of other packages.
        hero: the figure beside the answer, at the top.
        title: the page's title.
    """
    from markupsafe import Markup

    stored = [one for group in report.groups for one in group.stored]
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
            answer=content.answer(content.compared(report.shown)),
            hero=hero,
            lines=[
                line
                for group in content.compared(report.shown)
                for line in content.leader_lines(group)
            ],
            warnings=content.warnings(report.groups, stored),
            parts=parts,
            overview=report.overview,
            hazards=report.hazards,
            hours=report.hours,
            across=across,
            offered=report.offered,
            pictures=offered,
            cells=cells.cells(stored, {row["cell_hash"]: row for row in report.rows}),
            environments=cells.environments(stored),
            counts=counts(stored),
            days=sorted({one.record.started[:10] for one in stored}),
        )
    )


def templates(*folders: Path) -> Environment:
    """Return the templates of the page, and of further folders, which come first."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([*folders, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def counts(stored: Sequence[StoredRecord]) -> dict[str, int]:
    """Return how many cells have each status."""
    statuses = [one.record.status for one in stored]
    return {name: statuses.count(name) for name in ("done", "skipped", "failed")}
