"""What forgeries of records share: the corpus, and how a cell is edited and sealed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from honest import read, write

from bench.results.files import read_parquet, write_parquet
from bench.results.predictions import Predictions, read_predictions, write_predictions
from bench.results.record import summarise
from bench.results.store import mark_done

Cells = dict[str, Path]
Forgery = Callable[[Cells], object]
FORGERIES: dict[str, tuple[Forgery, str, str]] = {}
"""Each forgery by name, with the check that refuses it and a part of its line."""


def forgery(check: str, line: str) -> Callable[[Forgery], Forgery]:
    def add(function: Forgery) -> Forgery:
        FORGERIES[function.__name__] = function, check, line
        return function

    return add


def edit(cells: Cells, of: str = "average", **changes: object) -> None:
    """Change fields of a record, by dotted names with two underscores, and seal it anew."""
    values = read(cells[of])
    for name, value in changes.items():
        *rooms, leaf = name.split("__")
        room = values
        for one in rooms:
            room = room[one]
        room[leaf] = value
    write(cells[of], values)


def tasks_of(folder: Path) -> dict[str, np.ndarray]:
    return read_parquet(folder / "tasks.parquet")


def put_tasks(folder: Path, columns: dict[str, np.ndarray]) -> None:
    write_parquet(folder / "tasks.parquet", columns)
    values = read(folder)
    values["accuracy"] = summarise(columns["accuracy"]).model_dump()
    write(folder, values)


def answers_of(folder: Path) -> Predictions:
    found = read_predictions(folder / "predictions.parquet", 60)
    return Predictions(found.predicted.copy(), found.true.copy(), found.margin.copy())


def put_answers(folder: Path, found: Predictions) -> None:
    write_predictions(folder / "predictions.parquet", found)
    mark_done(folder)
