"""One flat row per method and setting, for `summary.csv`, the figures and the page's summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.results.frame import open_interval_of
from bench.results.record import Record
from bench.stats import (
    Interval,
    hierarchical_interval,
    improvement,
    mean_interval,
    minimal_detectable_difference,
)
from reports.rows.groups import Group
from reports.rows.results import Pair, Result, Row, Setting, best_first, paired
from reports.tables.accuracy import verdict
from reports.tables.caption import device_name
from reports.tables.chance import meta_iterations


@dataclass(frozen=True)
class Leader:
    """The best data-free row of a setting among those of its inference, and its lead over the next.

    `lead` is the paired difference from the next row with its 95 % t interval; `ahead` how often
    it is ahead on a task; `detectable` what this many tasks would have found. All None where
    there is no next row, or none on the same tasks. `remark` limits the lead: fewer seeds than
    either has, another pool.
    """

    setting: Setting
    row: Row
    result: Result
    ties: tuple[Row, ...]
    next_row: Row | None = None
    lead: Interval | None = None
    ahead: float | None = None
    detectable: float | None = None
    remark: str = ""
    oracle: tuple[Row, Result] | None = None

    @property
    def clear(self) -> bool:
        """Whether no row is tied, and the interval of the lead lies above 0."""
        return self.lead is not None and self.lead.low > 0 and not self.ties


def leaders(group: Group) -> list[Leader]:
    """Return the leaders of each setting among its inductive and its transductive rows."""
    return [
        _leader(group, setting, done)
        for setting in group.settings
        for done in group.rivals(setting)
    ]


def _leader(group: Group, setting: Setting, done: dict[Row, Result]) -> Leader:
    best, *rest = best_first(done)
    oracles = {
        row: result
        for row in group.rows
        if not row.ranked and (result := group.results.get((row, setting))) and result.done
    }
    oracle = max(oracles, key=lambda row: oracles[row].mean, default=None)
    marks = verdict(group, setting)
    parts: dict[str, Any] = {}
    if rest and (pair := paired(done[best], done[rest[0]])).reason is None:
        a, b = pair.a.tasks, pair.b.tasks
        parts = {
            "lead": mean_interval(a - b),
            "ahead": improvement(a, b).mean,
            "detectable": minimal_detectable_difference(a, b),
            "remark": _remark(pair, (done[best], done[rest[0]])),
        }
    return Leader(
        setting=setting,
        row=best,
        result=done[best],
        ties=tuple(row for row in rest if row in marks),
        next_row=rest[0] if rest else None,
        oracle=(oracle, oracles[oracle]) if oracle else None,
        **parts,
    )


def _remark(pair: Pair, both: Sequence[Result]) -> str:
    """Say what of the two rows of a pair is not compared, or is not the choice of the method."""
    seeds = ", ".join(map(str, pair.seeds))
    word = "seed" if len(pair.seeds) == 1 else "seeds"
    limits = [f"on {word} {seeds}"] if any(one.seeds != pair.seeds for one in both) else []
    limits += ["of another pool"] if pair.has_two_pools else []
    return f" ({', '.join(limits)})" if limits else ""


def over_seeds(result: Result) -> Interval | None:
    """Return the interval over seeds and tasks; None for one seed or different tasks."""
    if len(result.done) < 2 or not result.task_list or result.by_seed.shape[1] < 2:
        return None
    return hierarchical_interval(result.by_seed)


def over_classes(group: Group, result: Result) -> Interval | None:
    """Return the open interval, over other test classes and images; None where not stored."""
    classes = result.classes
    if classes is None or len(classes) < 2:
        return None
    return open_interval_of(result.tasks, classes, group.memo)


def summary_rows(group: Group) -> list[dict[str, Any]]:
    """Return one row per method and setting with a result; fractions, absent values None."""
    rows = []
    first = group.first
    for setting in group.settings:
        marks = verdict(group, setting)
        for row in group.rows:
            result = group.results.get((row, setting))
            if result is None or not result.done:
                continue
            best = {"best": marks.get(row) == "best", "tied": marks.get(row) == "tied"}
            rows.append(
                {
                    "group": group.name,
                    "scenario": first.scenario,
                    "protocol": first.protocol_label,
                    "variant": first.variant,
                    "net": first.net,
                    "architectures": "+".join(first.architectures),
                    "setting": group.setting_name(setting),
                    "dataset": setting.data,
                    "n_way": setting.n_way,
                    "k_shot": setting.k_shot,
                    "method": row.full_name,
                    "learner": row.head,
                    "knowledge": row.knowledge,
                    "inference": row.inference,
                    "meta_iterations": meta_iterations(result.done[0].record),
                    "n_query": first.n_query,
                    "n_test_tasks": first.n_test_tasks,
                    "device": "; ".join(sorted({device_name(o.record) for o in result.done})),
                    **best,
                    **_numbers(group, result),
                    **_costs([one.record for one in result.done]),
                }
            )
    return rows


def _numbers(group: Group, result: Result) -> dict[str, Any]:
    seeds, classes = over_seeds(result), over_classes(group, result)
    several = len(result.tasks) > 1
    _, low, high = mean_interval(result.tasks) if several else (None, None, None)
    return {
        "mean": result.mean,
        "ci95": result.ci95,
        "t_low": low,
        "t_high": high,
        "seeds": len(result.done),
        "seed_std": result.spread,
        "seeds_low": seeds.low if seeds else None,
        "seeds_high": seeds.high if seeds else None,
        "open_low": classes.low if classes else None,
        "open_high": classes.high if classes else None,
    }


COSTS: dict[str, Callable[[Record], float | None]] = {
    "fit_s": lambda r: r.fit_seconds,
    "test_tasks_per_s": lambda r: r.test_rate,
    "train_tasks_per_s": lambda r: r.timing.train_tasks_per_s,
    "pseudo_images_per_s": lambda r: r.timing.pseudo_images_per_s,
    "peak_memory_bytes": lambda r: r.timing.peak_memory_bytes,
    "params": lambda r: r.cost.params,
    "macs_per_query_image": lambda r: r.cost.macs_per_query_image,
    "teachers": lambda r: r.pool.n if r.pool else None,
}


def _costs(records: Sequence[Record]) -> dict[str, float | None]:
    found = {}
    for name, read in COSTS.items():
        values = [value for record in records if (value := read(record)) is not None]
        found[name] = float(np.mean(values)) if values else None
    return found


def rate_rows(group: Group) -> tuple[str, list[dict[str, Any]]]:
    """Return the device that most cells of a group ran on, and one row per cell of it.

    Rates of tests that had kept embeddings are left out: they are those of another test.
    """
    cells = [(row, one.record) for (row, _), result in group.results.items() for one in result.done]
    if not cells:
        return "", []
    device, _ = Counter(device_name(record) for _, record in cells).most_common(1)[0]
    rows = []
    for row, record in cells:
        if device_name(record) == device:
            rates = {name: COSTS[name](record) for name in COSTS if name.endswith("_per_s")}
            if record.timing.embeddings_reused:
                rates["test_tasks_per_s"] = None
            names = {"method": row.full_name, "learner": row.head, "knowledge": row.knowledge}
            rows.append(names | rates)
    return device, rows
