"""What differs between versions of the site: cells added, changed and removed.

The site keeps the list of its cells, and of its versions, in `site.json`; the next build in the
same folder compares with it. Dates are those of records, so that the same records give the same
site.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.results.files import content_hash

STATE = "site.json"
NAMED = 20
"""Cells that the summary of a version names."""
MOST = 50
"""Versions that are kept."""

Cells = Mapping[str, Mapping[str, str]]
"""By hash: `record` (SHA-256 of the record), `text` (name and accuracy), `date` (its end)."""


def versions(folder: Path, cells: Cells) -> list[dict[str, Any]]:
    """Return the versions of a site, the newest first, with one for cells that differ now."""
    before = _read(folder)
    known: Cells = before["cells"]
    kept: list[dict[str, Any]] = before["versions"]
    added = {h: one["text"] for h, one in cells.items() if h not in known}
    changed = {
        h: one["text"]
        for h, one in cells.items()
        if h in known and known[h]["record"] != one["record"]
    }
    removed = {h: one["text"] for h, one in known.items() if h not in cells}
    if not (added or changed or removed):
        return kept
    parts = {"added": added, "changed": changed, "removed": removed}
    counts = [f"{len(some)} {name}" for name, some in parts.items() if some]
    texts = [text for some in parts.values() for text in some.values()]
    more = f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    now = {
        "id": content_hash({h: one["record"] for h, one in cells.items()}),
        "date": max(one["date"] for one in cells.values()),
        "title": f"Cells: {', '.join(counts)}",
        "summary": "; ".join(texts[:NAMED]) + more,
        **parts,
    }
    return [now, *kept][:MOST]


def state(cells: Cells, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what `site.json` holds."""
    return {"cells": dict(cells), "versions": found}


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return {"cells": dict(content["cells"]), "versions": list(content["versions"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"cells": {}, "versions": []}
