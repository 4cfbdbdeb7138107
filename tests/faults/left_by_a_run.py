"""A small real run, and the files that it leaves, by kind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.cli.main import main
from bench.results.files import read_parquet
from bench.results.find import find_records
from bench.results.store import TASKS

SUITE = """
title: two cells
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets:
  micro: {teacher_epochs: 1, max_teachers: 2, meta_iterations: 4, validate_every: 2, n_val_tasks: 2}
k_shot: [1]
n_query: 2
n_test_tasks: 3
methods:
  - method: average
  - method: purer
    learner: protonet
"""
NOT_READ_BACK = (r"\.lease$", r"report/[^.]", r"report/figures/[^.]", r"\.ingested$")
"""Nothing is made of what these hold: leases, and the report, which each run writes again."""


class Left(NamedTuple):
    """The folders of a run, its suite's file, and its own images if it has some."""

    suite: Path
    runs: Path
    cache: Path
    images: Path | None = None

    def copied(self, folder: Path) -> Left:
        """Return a copy of all in another folder."""
        for path in (self.runs, self.cache):
            shutil.copytree(path, folder / path.name)
        shutil.copy(self.suite, folder)
        places = (folder / path.name for path in (self.suite, self.runs, self.cache))
        return Left(*places, self.images)

    def run(self, *words: str) -> int:
        """Run the suite in this process, and return the exit status."""
        command = ["run", str(self.suite), f"--runs={self.runs}", f"--cache={self.cache}"]
        command += ["--device=cpu", "--jobs=1", "--no-mlflow", "--no-figures", *words]
        command += [f"--dataset-dir=birds={self.images}"] if self.images else []
        with pytest.raises(SystemExit) as end:
            main(command)
        return int(end.value.code or 0)

    def results(self) -> dict[str, object]:
        """Return what must be the same, bit by bit, by cell."""
        found: dict[str, object] = {}
        for stored in find_records(self.runs):
            record, columns = stored.record, read_parquet(stored.folder / TASKS)
            tasks = {name: column.tolist() for name, column in columns.items()}
            parts = (record.fit and record.fit.sha256, record.pool and record.pool.sha256)
            found[record.cell_hash] = (record.status, record.accuracy, *parts, tasks)
        return found


def kind(path: Path, root: Path) -> str:
    """Return a file's place with `#` for digests, numbers and random parts."""
    return re.sub(r"[0-9a-f]{8,}", "#", path.relative_to(root).as_posix())


def kinds(left: Left) -> dict[str, Path]:
    """Return one file of each kind that is read back."""
    found: dict[str, Path] = {}
    for root in (left.runs, left.cache):
        for path in sorted(root.rglob("*")):
            name = f"{root.name}/{kind(path, root)}"
            if path.is_file() and not any(re.search(one, name) for one in NOT_READ_BACK):
                found.setdefault(name, path)
    return found


def flip(path: Path, where: float = 0.5) -> None:
    """Change one bit of a file.

    Args:
        path: the file.
        where: the place, as a share of its length.
    """
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Take all of a file's content."""
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """Take the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lose(path: Path) -> None:
    """Remove a file."""
    path.unlink()


DAMAGES = (flip, empty, cut, lose)
