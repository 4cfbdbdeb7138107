"""Figures as files, drawn again only when the records or the drawing code changed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results.files import content_hash, file_sha256, recall, remember, write_bytes
from reports.figures.style import FORMATS, as_bytes, laid_out
from reports.rows.groups import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn: its file's name, title, caption, and description."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure]

    def files(self, formats: Sequence[str] = FORMATS) -> dict[str, bytes]:
        """Return the figure's files by format."""
        figure = laid_out(self.draw())
        return {kind: as_bytes(figure, kind) for kind in formats}


def write_drawings(
    folder: Path, drawings: Sequence[Drawing], key: str, formats: Sequence[str] = FORMATS
) -> list[list[Path]]:
    """Write the files of several figures; see `write_drawing`."""
    gc.freeze()  # else each collection of a drawn figure walks through all records again
    try:
        return [write_drawing(folder, one, key, formats) for one in drawings]
    finally:
        gc.unfreeze()


def write_drawing(
    folder: Path, drawing: Drawing, key: str, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write a figure's files into a folder unless they are there, and return their paths.

    A file of another format that was drawn from something else is deleted.

    Args:
        folder: where the files go, and `.NAME.key`, which says from what they were drawn.
        drawing: the figure.
        key: what it follows from, see `drawing_key`.
        formats: of `FORMATS`.
    """
    paths = [folder / f"{drawing.name}.{kind}" for kind in formats]
    mark = folder / f".{drawing.name}.key"
    known = recall(mark)
    same = known.get("key") == key
    digests = _digests(paths)
    if same and len(digests) == len(paths) and digests.items() <= known["files"].items():
        return paths
    for kind in () if same else FORMATS:
        (folder / f"{drawing.name}.{kind}").unlink(missing_ok=True)
    for path, content in zip(paths, drawing.files(formats).values(), strict=True):
        write_bytes(path, content)
    kept = known["files"] if same else {}
    remember(mark, {"key": key, "files": {**kept, **_digests(paths)}})
    return paths


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in paths if path.exists()}


def drawing_key(groups: Sequence[Group]) -> str:
    """Return a digest of the records and of the drawing code."""
    records = [(g.name, [s.record.model_dump(mode="json") for s in g.stored]) for g in groups]
    root = Path(__file__).parents[1]
    code = [file_sha256(p) for p in sorted(root.rglob("*.py"))]
    return content_hash([records, code])
