"""Whose results records are: ours, or of a submission; and whether we have reproduced them.

A submission is a folder with `submission.json`; the badges of cells that were run again stand in
its `badges/`, apart from what was handed in.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bench.results.files import file_sha256, write_json
from bench.results.record import Record
from bench.results.store import RECORD, StoredRecord

SUBMISSION = "submission.json"
BADGES = "badges"
Origin = Literal["ours", "reproduced", "submitted"]
OURS: Origin = "ours"
AGREES = ("bitwise", "within the interval")
"""The verdicts of `bench reproduce` that count as reproduced."""


class Badge(BaseModel):
    """What came of running a submitted cell again: the verdict, the machine, the commit.

    `record_sha256` is of the submitted `record.json`: another record has no such badge. Accuracies
    are fractions; `difference` is again minus submitted, with its 95 % interval.
    """

    model_config = ConfigDict(extra="forbid")

    cell_hash: str
    record_sha256: str
    verdict: Literal["bitwise", "within the interval", "different"]
    tasks: int
    tasks_equal: int
    mean: float
    mean_again: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    machine: str
    commit: str | None
    date: str


def submission_of(folder: Path) -> Path | None:
    """Return the folder of the submission that a cell's folder belongs to; None of ours."""
    return next((one for one in _above(folder) if (one / SUBMISSION).is_file()), None)


@functools.cache
def _above(folder: Path) -> tuple[Path, ...]:
    """Return the folders that may hold a submission with this cell: `<name>/<suite>/<hash>`."""
    return tuple(folder.resolve().parents)[:2]


def badge_file(folder: Path, cell_hash: str) -> Path | None:
    """Return where the badge of a submitted cell is, or would be; None for a cell of ours."""
    submission = submission_of(folder)
    return submission and submission / BADGES / f"{cell_hash}.json"


def read_badge(path: Path) -> Badge | None:
    """Return a badge, None where there is none that can be read."""
    try:
        return Badge.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def write_badge(stored: StoredRecord, row: Mapping[str, Any], again: Record) -> Path | None:
    """Write the badge of a submitted cell that was run again; return its path, None for ours.

    Args:
        stored: what was handed in.
        row: the comparison of both, as `bench reproduce --json` prints it.
        again: the record of the repetition.
    """
    path = badge_file(stored.folder, stored.record.cell_hash)
    if path is None:
        return None
    device, environment = again.device, again.environment
    dirty = "-dirty" if environment.git_dirty else ""
    values = {name: row[name] for name in Badge.model_fields.keys() & row.keys()}
    badge = Badge(
        **values,
        record_sha256=file_sha256(stored.folder / RECORD),
        machine=f"{device.type} ({device.name}, {device.threads} threads), {environment.platform}",
        commit=environment.git_commit and environment.git_commit + dirty,
        date=again.ended,
    )
    write_json(path, badge.model_dump(mode="json"))
    return path


def origin_of(folder: Path, cell_hash: str) -> Origin:
    """Return whose result a cell's folder holds."""
    path = badge_file(folder, cell_hash)
    if path is None:
        return OURS
    badge = read_badge(path)
    if badge is None or badge.verdict not in AGREES or badge.cell_hash != cell_hash:
        return "submitted"
    same = badge.record_sha256 == file_sha256(folder / RECORD)
    return "reproduced" if same else "submitted"
