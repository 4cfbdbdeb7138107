"""The cost table: time, throughput, memory and operations of fits and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.rows.groups import INFERENCE, Group
from reports.rows.results import Row, Setting
from reports.tables.accuracy import name_columns, row_names
from reports.tables.caption import device_name, origin_sentence
from reports.tables.table import Column, Entry, Footnotes, Section, Table

Measure = tuple[str, Callable[[Record], float | None], Callable[[float], str]]

FRONT = (
    "on the Pareto front of accuracy and MACs per query image: no data-free method of its kind, "
    "inductive or transductive, beats it in both"
)

REUSED = "embeddings of an earlier setting's tasks were kept, so that the rate is higher"


def rate(value: float) -> str:
    """Return a number with three digits or all before the point: `0.42`, `7.31`, `1234`."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def amount(value: float) -> str:
    """Return a count with a decimal prefix: `512`, `29.5k`, `1.31M`, `2.40G`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return rate(value / size) + prefix
    return f"{value:.0f}"


MEASURES: tuple[Measure, ...] = (
    ("fit s", lambda r: r.fit_seconds, rate),
    ("train tasks/s", lambda r: r.timing.train_tasks_per_s, rate),
    ("pseudo images/s", lambda r: r.timing.pseudo_images_per_s, rate),
    ("test tasks/s", lambda r: r.test_rate, rate),
    ("peak GB", lambda r: r.timing.peak_memory_bytes, lambda value: f"{value / 1e9:.2f}"),
    ("params", lambda r: r.cost.params, amount),
    ("MACs/query image", lambda r: r.cost.macs_per_query_image, amount),
)


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return which of n points (n,) no other point beats in both, cheapest first: indices."""
    order = np.lexsort((-np.asarray(gain), np.asarray(cost)))
    front, best = [], -np.inf
    for index in order:
        if gain[index] > best:
            front.append(index)
            best = gain[index]
    return np.array(front, dtype=int)


def cost_table(group: Group) -> Table | None:
    """Return the throughput and cost of a group's finished cells, or None without any.

    Each device has its sections: rates of different devices do not share one.
    """
    notes = Footnotes()
    devices = sorted({device_name(one.record) for one in _done(group.stored)})
    if not devices:
        return None
    sections = []
    fronts = {setting: _front(_records(group, setting)) for setting in group.settings}
    for device in devices:
        for setting in group.settings:
            heading = group.setting_name(setting)
            heading += f", {device}" if len(devices) > 1 else ""
            lines = [
                [*row_names(row, group.rows), *_line(chosen, row in fronts[setting], notes)]
                for row, records in _records(group, setting).items()
                if (chosen := [r for r in records if device_name(r) == device])
            ]
            if lines:
                sections.append(Section(heading, lines))
    return Table(
        kind="cost",
        title=f"Throughput and cost: {group.name}",
        columns=[
            *name_columns(group.rows),
            Column("accuracy %", "accuracy"),
            *(Column(name, name) for name, _, _ in MEASURES),
        ],
        sections=sections,
        caption=_cost_caption(group),
        strong_means=FRONT,
        notes=notes.texts,
    )


def _done(stored: Iterable[StoredRecord]) -> list[StoredRecord]:
    return [one for one in stored if one.record.status == "done"]


def _records(group: Group, setting: Setting) -> dict[Row, list[Record]]:
    """Return the finished records of each row in a setting."""
    found = {}
    for row in group.rows:
        result = group.results.get((row, setting))
        if result and result.done:
            found[row] = [one.record for one in result.done]
    return found


def _front(done: dict[Row, list[Record]]) -> set[Row]:
    """Return the data-free rows on the Pareto front of accuracy and MACs per query image.

    Inductive and transductive rows each have a front. Neither axis depends on the device: means are
    over the seeds that all rows have, or over all if there are none, wherever they were run.
    """
    return {row for name in INFERENCE for row in _front_of(done, name)}


def _front_of(done: dict[Row, list[Record]], inference: str) -> set[Row]:
    known = [
        row
        for row, records in done.items()
        if row.ranked
        and row.inference == inference
        and all(r.cost.macs_per_query_image is not None for r in records)
    ]
    seeds = [{r.seed for r in done[row]} for row in known]
    both = set.intersection(*seeds) if seeds else set()
    some = [[r for r in done[row] if r.seed in both or not both] for row in known]
    macs = [np.mean([r.cost.macs_per_query_image or 0 for r in records]) for records in some]
    gains = [_accuracy(records) for records in some]
    return {known[i] for i in pareto_front(np.array(macs), np.array(gains))}


def _accuracy(records: Sequence[Record]) -> float:
    return float(np.mean([r.scored.mean for r in records]))


def _line(records: Sequence[Record], on_front: bool, notes: Footnotes) -> list[Entry]:
    accuracy = Entry(f"{100 * _accuracy(records):.1f}", strong=on_front)
    line = [accuracy]
    for name, read, show in MEASURES:
        values = [value for record in records if (value := read(record)) is not None]
        reused = name == "test tasks/s" and any(r.timing.embeddings_reused for r in records)
        numbers = (notes.number(REUSED),) if reused and values else ()
        line.append(Entry(show(float(np.mean(values))) if values else "–", notes=numbers))
    return line


def _cost_caption(group: Group) -> str:
    several = len({one.record.seed for one in group.stored}) > 1
    seeds = (
        " Means over the seeds that ran on a device; the front is of those that all rows have, "
        "wherever they ran." * several
    )
    return (
        "Time of the fit (without the teachers) and test tasks per second: of a single CPU thread "
        "in processor seconds, where the record knows them, else by the clock. By the clock: "
        "meta-training tasks and pseudo images per second. Peak memory of the process or of the "
        "GPU's allocator, parameters and multiply-accumulate operations (MACs) of prediction; –: "
        "not done."
        f"{seeds} {origin_sentence(_done(group.stored))}"
    )
