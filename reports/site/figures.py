"""The figures of the site, drawn by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import available_cores
from reports.page.content import Picture, picture
from reports.rows.groups import Group

if TYPE_CHECKING:
    from reports.figures.drawing import Drawing

FOLDER = "figures"


def group_pictures(
    groups: Sequence[Group], names: Sequence[str], folder: Path
) -> list[list[Picture]]:
    """Draw the figures of groups; return those of each, with their addresses from its page.

    Args:
        groups: of records.
        names: of each group, for files.
        folder: of the site.
    """
    n = min(available_cores(), len(groups))
    folders = [folder] * len(groups)
    if n < 2:
        return list(map(_group, groups, names, folders))
    # processes that are forked would share the locks of threads that are not there
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n, context) as pool:
        largest = sorted(range(len(groups)), key=lambda i: -len(groups[i].stored))
        jobs = {i: pool.submit(_group, groups[i], names[i], folder) for i in largest}
        return [jobs[i].result() for i in range(len(groups))]


def across_pictures(groups: Sequence[Group], folder: Path) -> list[Picture]:
    """Draw the figures of all groups together; return them with their addresses from the index."""
    from reports.figures.build import across_drawings
    from reports.figures.drawing import drawing_key

    return _drawn(across_drawings(groups), drawing_key(groups), folder, "")


def _group(group: Group, name: str, folder: Path) -> list[Picture]:
    from reports.figures.build import group_drawings
    from reports.figures.drawing import drawing_key

    return _drawn(group_drawings(group, name), drawing_key([group]), folder, "../")


def _drawn(drawings: Sequence[Drawing], key: str, folder: Path, up: str) -> list[Picture]:
    from reports.figures.drawing import write_drawings

    found = write_drawings(folder / FOLDER, drawings, key, ["svg"])
    return [
        picture(one, path.read_bytes(), f"{up}{FOLDER}/{path.name}")
        for one, (path,) in zip(drawings, found, strict=True)
    ]
