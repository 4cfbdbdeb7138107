"""Honest cells of the built-in data, small and complete, as a run leaves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from bench.data.sets.glyphs import Glyphs
from bench.data.sources import open_data
from bench.execute.cell import run_cell
from bench.execute.state import RunState
from bench.results.files import content_hash
from bench.results.store import mark_done
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite

SETTINGS = (
    "budget=micro",
    "budget.teacher_epochs=1",
    "budget.max_teachers=2.0",
    "budget.meta_iterations=6.0",
    "budget.oracle_iterations=6",
    "budget.validate_every=3",
    "budget.n_val_tasks=10",
    "n_test_tasks=60",
    "n_query=5",
)
METHODS = ("random", "average", "purer")


def honest_runs(cache: Path, runs: Path) -> None:
    """Run the cells; what they say of the checkout is that of an installed package."""
    data = {"glyphs": open_data(Glyphs(), cache)}
    command = " ".join(["bench run glyphs", *(f"--set {one}" for one in SETTINGS)])
    state = RunState("glyphs", runs, cache, torch.device("cpu"), data, command)
    for cell in honest_cells():
        folder = run_cell(cell, state)
        values = read(folder)
        values["environment"] |= {"git_commit": None, "git_dirty": None}
        dirty = "the checkout had uncommitted changes"
        values["warnings"] = [one for one in values["warnings"] if one != dirty]
        write(folder, values)


def honest_cells() -> list[Cell]:
    """Return the first cell of each method."""
    cells = expand(*read_suite("glyphs", [*SETTINGS, "k_shot=1"]))
    return [next(c for c in cells if c.method == name) for name in METHODS]


def read(folder: Path) -> dict[str, Any]:
    """Return the values of a cell's record."""
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def write(folder: Path, values: dict[str, Any]) -> None:
    """Write a record and seal the cell anew; values may hold what is no number, or no character."""
    (folder / "record.json").write_text(json.dumps(values), encoding="utf-8")
    mark_done(folder)


def rehash(folder: Path, values: dict[str, Any], **fields: Any) -> Path:
    """Change fields of a record and of what was hashed, with the hash and the folder's name."""
    cell = values["identity"]["cell"]
    for name, value in fields.items():
        values[name] = value
        cell[name] = value
    values["cell_hash"] = content_hash(values["identity"])[:16]
    write(folder, values)
    return folder.rename(folder.with_name(values["cell_hash"]))


def copy_of(runs: Path, target: Path) -> dict[str, Path]:
    """Copy a folder of runs; return the folder of each method's cell."""
    shutil.copytree(runs, target)
    found = sorted(path.parent for path in target.glob("*/*/record.json"))
    return {read(folder)["method"]: folder for folder in found}
