"""Writing the site: its pages, figures, records and feed, all with relative addresses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.results.community import origin_of
from bench.results.files import file_sha256, write_json, write_text
from bench.results.store import RECORD, StoredRecord
from reports.page import cells as page_cells
from reports.page import content
from reports.page.content import Part, Picture, short_name, slug
from reports.page.render import FOLDER as PAGE
from reports.page.render import counts, templates
from reports.site.changes import STATE, state, versions
from reports.site.figures import across_pictures, group_pictures
from reports.tables.collection import Report

HERE = Path(__file__).parent
TITLE = "Data-free meta-learning: results"
PAGES = ("scenarios", "methods", "cells")
"""Folders of pages, each written anew by every build."""


def build_site(report: Report, folder: Path, figures: bool = True, title: str = TITLE) -> int:
    """Write the site of some records; return the number of pages.

    Args:
        report: what the records say.
        folder: where; files of an earlier build are replaced, its list of versions is kept.
        figures: False leaves figures out.
        title: of the site.
    """
    stored = [one for group in report.groups for one in group.stored]
    parts = _parts(report, folder, figures)
    found = _cells(report, stored, parts)
    listed = {one["hash"]: one["listed"] for one in found}
    history = versions(folder, listed)
    pages = _pages(report, stored, parts, found)
    pages["index.html"]["across"] = across_pictures(report.shown, folder) if figures else []
    pages["changes.html"] = {"template": "changes.html.j2", "versions": history, "known": listed}
    for name in PAGES:
        shutil.rmtree(folder / name, ignore_errors=True)
    environment = templates(HERE)
    for name, values in pages.items():
        up = "../" * name.count("/")
        text = environment.get_template(values.pop("template")).render(title=title, up=up, **values)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    feed = environment.get_template("changes.xml.j2").render(title=title, versions=history)
    write_text(folder / "changes.xml", feed)
    for one in stored:
        target = folder / "cells" / f"{one.record.cell_hash}.json"
        shutil.copyfile(one.folder / RECORD, target)
    for kind in ("css", "js"):
        write_text(folder / f"site.{kind}", (PAGE / f"page.{kind}").read_text(encoding="utf-8"))
    write_json(folder / STATE, state(listed, history))
    return len(pages)


def _parts(report: Report, folder: Path, figures: bool) -> list[Part]:
    names = [slug(group, report.shown) for group in report.shown]
    shown: list[list[Picture]] = [[] for _ in names]
    if figures:
        shown = group_pictures(report.shown, names, folder)
    return [
        Part(name, short_name(group), group.name, tables, some)
        for name, group, tables, some in zip(names, report.shown, report.tables, shown, strict=True)
    ]


def _cells(
    report: Report, stored: Sequence[StoredRecord], parts: Sequence[Part]
) -> list[dict[str, Any]]:
    """Return the data of each cell's page."""
    rows = {row["cell_hash"]: row for row in report.rows}
    places = {
        one.record.cell_hash: part
        for group, part in zip(report.shown, parts, strict=True)
        for one in group.stored
    }
    found = page_cells.cells(stored, rows)
    for cell, one in zip(found, stored, strict=True):
        cell["origin"] = origin_of(one.folder, one.record.cell_hash)
        cell["scenario"] = places.get(one.record.cell_hash)
        cell["page"] = page_name(one.record.method)
        cell["listed"] = {
            "record": file_sha256(one.folder / RECORD),
            "text": f"{cell['name']}: {cell['accuracy'] if cell['mean'] else cell['status']}",
            "date": one.record.ended,
        }
    return found


def page_name(method: str) -> str:
    """Return the name of a method's page: its own, without what has a meaning in addresses."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", method)


def _pages(
    report: Report,
    stored: Sequence[StoredRecord],
    parts: Sequence[Part],
    found: Sequence[dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return template and values of each page, by its path."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for cell in found:
        methods.setdefault(cell["page"], []).append(cell)
    methods = dict(sorted(methods.items()))
    pages: dict[str, dict[str, Any]] = {
        "index.html": {
            "template": "index.html.j2",
            "answer": content.answer(content.compared(report.shown)),
            "lines": content.all_leader_lines(report.shown),
            "warnings": content.warnings(report.groups, stored),
            "overview": report.overview,
            "hazards": report.hazards,
            "hours": report.hours,
            "scenarios": parts,
            "methods": methods,
            "cells": found,
            "counts": counts(stored),
            "days": sorted({one.record.started[:10] for one in stored}),
        }
    }
    for part in parts:
        mine = [cell for cell in found if cell["scenario"] is part]
        pages[f"scenarios/{part.slug}.html"] = {
            "template": "scenario.html.j2",
            "part": part,
            "cells": mine,
        }
    for name, some in methods.items():
        places = {cell["scenario"].slug: cell["scenario"] for cell in some if cell["scenario"]}
        pages[f"methods/{name}.html"] = {
            "template": "method.html.j2",
            "name": some[0]["method"],
            "cells": some,
            "scenarios": list(places.values()),
        }
    surroundings = page_cells.environments(stored)
    for cell in found:
        pages[f"cells/{cell['hash']}.html"] = {
            "template": "cell.html.j2",
            "cell": cell,
            "environment": surroundings[cell["environment"]],
        }
    return pages
