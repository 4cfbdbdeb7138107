"""What the package knows of data sets, task lists and settings without data or plug-ins.

`known.json` is written by `python -m tests.verify.write_known`; a test compares.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.contract import TaskShape
from bench.data.sets import class_split
from bench.data.tasks import TEST_SEED, TaskList, frozen_tasks, lists_digest, shares

FILE = Path(__file__).with_name("known.json")
HELD_OUT = ("val", "test")
LETTERS_DRAWN = "letters"
"""In place of the file of a class split, where the classes are letters that are drawn by code."""
MOST_TASKS = 100_000
"""A list of more tasks is not drawn again."""


@functools.cache
def _content() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def data_digests(name: str) -> dict[str, str]:
    """Return the known digests of a data set, and what each stands for."""
    return _content()["data"].get(name, {}).get("digests", {})


def class_counts(name: str) -> tuple[int, ...] | None:
    """Return the images of each class of a data set's test split; None where not known."""
    counts = _content()["data"].get(name, {}).get("test_counts")
    return tuple(counts) if counts else None


@functools.cache
def held_out(name: str) -> Mapping[str, frozenset[str]]:
    """Return the classes of a data set's validation and test splits; nothing where not known."""
    official = _content()["data"].get(name, {}).get("split")
    if official is None:
        return {}
    if official == LETTERS_DRAWN:
        from bench.data.sets.glyphs import LETTERS, class_name

        return {part: frozenset(map(class_name, LETTERS[part])) for part in HELD_OUT}
    found = class_split(official)
    return {part: frozenset(found[part]) for part in HELD_OUT}


def settings(kind: registry.Kind, name: str) -> Mapping[str, Any] | None:
    """Return what is known of a plug-in of this package; None of others.

    `version`; for methods and calibrations `defaults`, `added` (defaults of settings that leave the
    hash as it was); for learners and calibrations `transductive`; for methods `uses_pool`,
    `knowledge` and `presets`, `for_learners` where a preset differs with some, and `bn`: the mode
    of batch norm at prediction where it is not the protocol's (`by_learner`, or `by_setting` of the
    setting `bn`).
    """
    return _content()["plug_ins"].get(kind, {}).get(name)


def listed_digest(datasets: Sequence[str], shape: TaskShape, n_tasks: int) -> str | None:
    """Return the digest of a frozen task list that a suite of this package uses, None of others."""
    return _content()["lists"].get(list_name(datasets, shape, n_tasks))


def list_name(datasets: Sequence[str], shape: TaskShape, n_tasks: int) -> str:
    """Return the name under which a frozen task list is known."""
    way = f"{shape.n_way}-way {shape.k_shot}-shot {shape.n_query}-query"
    return f"{'+'.join(datasets)} {way} {n_tasks} tasks"


@functools.lru_cache(maxsize=64)
def drawn_lists(
    datasets: tuple[str, ...], shape: TaskShape, n_tasks: int, balanced: bool = True
) -> tuple[TaskList, ...] | None:
    """Return the frozen test tasks of data sets whose class counts are known, drawn again."""
    counts = [class_counts(name) for name in datasets]
    if n_tasks > MOST_TASKS or not datasets or any(one is None for one in counts):
        return None
    parts = zip(datasets, counts, shares(n_tasks, len(datasets)), strict=True)
    return tuple(
        frozen_tasks(name, "test", np.asarray(one), shape, n, TEST_SEED, balanced)
        for name, one, n in parts
    )


def frozen_digest(
    datasets: tuple[str, ...], shape: TaskShape, n_tasks: int, balanced: bool = True
) -> str | None:
    """Return the digest of a frozen list: as shipped, else of the list drawn again, or None."""
    if balanced and (listed := listed_digest(datasets, shape, n_tasks)):
        return listed
    lists = drawn_lists(datasets, shape, n_tasks, balanced)
    return lists_digest(lists) if lists else None
