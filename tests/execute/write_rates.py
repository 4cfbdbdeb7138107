"""Write the rates that travel in the package: `python tests/execute/write_rates.py`, in the root.

They follow from the records in `results/`; `test_execute_rates.py` compares.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.base import ImageData, nominal_data
from bench.execute.rates import Took, Work, took
from bench.results.find import find_records
from bench.results.record import Record
from bench.teachers.train import recipe_for

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "bench" / "execute" / "rates.json"

Kind = tuple[str, str, int]
"""A machine, and a meta-model's architecture and image side."""


def rates() -> dict[str, Any]:
    """Return the content of the file: one row per kind of work, medians, four digits."""
    data = {n: nominal_data(registry.load("dataset", n)()) for n in registry.names("dataset")}
    sizes = {name: one.image_size for name, one in data.items()}
    records = [one.record for one in find_records(ROOT / "results")]
    pairs = [(record, one) for record in records if (one := took(record, sizes))]
    passes = pass_seconds(pairs)
    by_work: dict[Work, list[Took]] = defaultdict(list)
    for record, one in pairs:
        if (kind := kind_of(record, one)) in passes:
            by_work[one.work].append(in_passes(one, passes[kind]))
    rows = [row_of(work, same) for work, same in sorted(by_work.items())]
    return {"training_passes": short(training_passes(pairs, passes, data)), "rows": rows}


def kind_of(record: Record, one: Took) -> Kind:
    return record.device.model_dump_json(), one.work.net, one.work.image_size


def pass_seconds(pairs: Iterable[tuple[Record, Took]]) -> dict[Kind, float]:
    """Return the seconds per image of each network on each machine, from the tests of ProtoNet."""
    found: dict[Kind, list[float]] = defaultdict(list)
    for record, one in pairs:
        if one.work.learner == "protonet" and one.task is not None:
            found[kind_of(record, one)].append(one.task / one.work.images)
    return {kind: statistics.median(values) for kind, values in found.items()}


def in_passes(one: Took, seconds: float) -> Took:
    """Return the same times in passes of so many seconds."""
    fit, task, repeated = (
        None if time is None else time / seconds for time in (one.fit, one.task, one.repeated_task)
    )
    return one._replace(fit=fit, task=task, repeated_task=repeated)


def row_of(work: Work, same: Sequence[Took]) -> list[Any]:
    """Return a row: the work, and what it took."""
    values = [
        median([one.fit for one in same]),
        any(one.grows for one in same),
        median([one.task for one in same]),
        median([one.repeated_task for one in same]),
        int(median([one.memory for one in same])),
    ]
    return [*work, *values]


def training_passes(
    pairs: Iterable[tuple[Record, Took]],
    passes: Mapping[Kind, float],
    data: Mapping[str, ImageData],
) -> float:
    """Return what training a teacher takes per image and epoch, in passes; a median over pools.

    The first cell of a pool trained it, in what fit and test leave of the cell's time; less than a
    forward pass shows that an earlier run had, as of all pools of untrustworthy teachers.
    """
    first: dict[str, tuple[Record, Took]] = {}
    for record, one in sorted(pairs, key=lambda pair: pair[0].started):
        if record.pool:
            first.setdefault(record.pool.sha256, (record, one))
    found = [
        unaccounted(record) / trained_images(record, data[record.datasets[0]]) / passes[kind]
        for record, one in first.values()
        if len(record.datasets) == 1
        and one.work.architectures == (record.net,)
        and (kind := kind_of(record, one)) in passes
    ]
    return statistics.median(one for one in found if one > 1)


def unaccounted(record: Record) -> float:
    """Return the seconds of a cell that went neither into its fit nor into its test."""
    whole = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
    fit = 0.0 if record.fit.reused else record.timing.fit_s
    return whole.total_seconds() - fit - record.timing.test_s


def trained_images(record: Record, data: ImageData) -> float:
    """Return the training images of a pool's teachers, times epochs."""
    epochs = record.budget["teacher_epochs"]
    n_classes = sum(len(teacher["classes"]) for teacher in record.pool.teachers)
    per_class = float(data.splits["train"].counts.mean())
    return n_classes * per_class * recipe_for(record.net, epochs, "best").train_fraction * epochs


def median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return short(statistics.median(known)) if known else None


def short(value: float) -> float:
    return float(f"{value:.4g}")


def text(content: Mapping[str, Any]) -> str:
    """Return the file's text, one row per line."""
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in content["rows"])
    return f'{{"training_passes": {content["training_passes"]}, "rows": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    PATH.write_text(text(rates()), encoding="utf-8")
