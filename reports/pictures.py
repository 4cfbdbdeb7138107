"""The pictures of README and docs: drawn from stored records, each beside a digest of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.results.files import atomic_path, content_hash, write_text
from bench.results.store import StoredRecord
from reports.figures import frontier, student_size, untrustworthy
from reports.figures.budgets import budgets_drawing, shown_records
from reports.figures.drawing import Drawing
from reports.figures.style import as_bytes, laid_out

Made = tuple[Drawing | None, list[StoredRecord]]
"""A drawing, None where the records do not suffice, and the records that it is made of."""


def _budgets(stored: Sequence[StoredRecord]) -> Made:
    shown = shown_records(stored, "cifar_fs")
    return budgets_drawing(shown, "cifar_fs"), shown


def _frontier(stored: Sequence[StoredRecord], dark: bool = False) -> Made:
    shown = frontier.shown_records(stored, "cifar_fs")
    return frontier.frontier_drawing(shown, dark), shown


def _student_size(stored: Sequence[StoredRecord]) -> Made:
    shown = student_size.shown_records(stored, "cifar_fs")
    return student_size.student_size_drawing(shown, "cifar_fs"), shown


def _untrustworthy(stored: Sequence[StoredRecord]) -> Made:
    shown = untrustworthy.shown_records(stored, "cifar_fs")
    return untrustworthy.untrustworthy_drawing(shown, "cifar_fs"), shown


PICTURES: dict[str, Callable[[Sequence[StoredRecord]], Made]] = {
    "budgets": _budgets,
    "frontier": _frontier,
    "frontier-dark": functools.partial(_frontier, dark=True),
    "student-size": _student_size,
    "untrustworthy": _untrustworthy,
}
"""By name of the file, without ending."""


def write_pictures(stored: Sequence[StoredRecord], folder: Path) -> list[Path]:
    """Draw every picture as SVG into a folder, beside the digest of its records.

    Args:
        stored: records, one for each cell.
        folder: where `NAME.svg`, `NAME.txt` (words for who cannot see it) and `NAME.sha256` go.

    Returns:
        The paths of the pictures.
    """
    paths = []
    for name, make in PICTURES.items():
        drawing, used = make(stored)
        if drawing is None:
            continue
        path = folder / f"{name}.svg"
        with atomic_path(path) as temporary:
            temporary.write_bytes(as_bytes(laid_out(drawing.draw()), "svg"))
        write_text(folder / f"{name}.txt", f"{drawing.alt}\n")
        write_text(folder / f"{name}.sha256", f"{digest(used)}\n")
        paths.append(path)
    return paths


def stale_pictures(stored: Sequence[StoredRecord], folder: Path) -> list[str]:
    """Return the names of the pictures in a folder that were made of other records."""
    stale = []
    for name, make in PICTURES.items():
        drawing, used = make(stored)
        path = folder / f"{name}.sha256"
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if drawing is not None and kept != digest(used):
            stale.append(name)
    return stale


def digest(stored: Sequence[StoredRecord]) -> str:
    """Return the digest of the records that a picture is made of: cells and their results."""
    found = [
        [r.cell_hash, r.status, r.accuracy.mean if r.accuracy else None, r.ended]
        for r in (one.record for one in stored)
    ]
    return content_hash(sorted(found))
