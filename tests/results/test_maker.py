"""Who made a fit or teacher that has no stamp, as the records of a folder tell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.results.maker import Made, made_by_records

TEACHER, FIT = "ab" * 32, "cd" * 10
OLD, NEW = "1" * 40, "2" * 40


def write(runs: Path, cell: str, commit: str, ended: str, **changes: Any) -> None:
    record = {
        "environment": {"git_commit": commit, "git_dirty": False},
        "device": {"threads": 2, "type": "cpu"},
        "fit": {"sha256": FIT, "reused": True},
        "pool": {"teachers": [{"sha256": TEACHER}]},
        "ended": ended,
    }
    folder = runs / "suite" / cell
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record | changes), encoding="utf-8")


def test_the_oldest_record_that_used_it_counts(tmp_path: Path) -> None:
    write(tmp_path, "a", NEW, "2026-02-01")
    write(tmp_path, "b", OLD, "2026-01-01")
    assert made_by_records(tmp_path, TEACHER) == Made(OLD, 2, "cpu")
    assert made_by_records(tmp_path, FIT) == Made(OLD, 2, "cpu")
    assert made_by_records(tmp_path, "ef" * 32) is None


def test_the_record_of_the_cell_that_made_a_fit_counts_before_older_ones(tmp_path: Path) -> None:
    write(tmp_path, "a", OLD, "2026-01-01")
    write(tmp_path, "b", NEW, "2026-02-01", fit={"sha256": FIT, "reused": False})
    assert made_by_records(tmp_path, FIT) == Made(NEW, 2, "cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": {"digest": "0" * 64, "files": {}, "distributions": []}},
        {"environment": {"git_commit": OLD, "git_dirty": True}},
        {"environment": {"git_commit": None, "git_dirty": False}},
    ],
    ids=["it only used what older code made", "uncommitted changes", "no commit"],
)
def test_a_record_that_cannot_tell_does_not_count(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, "a", OLD, "2026-01-01", **changes)
    assert made_by_records(tmp_path, TEACHER) is None
    assert made_by_records(tmp_path, FIT) is None
