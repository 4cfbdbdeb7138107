"""Records that may share a table, laid out as methods × settings with the seeds inside.

Numbers share a table only where scenario, protocol label, every constant and count behind that
label, meta-model, pool architectures, and the size of the task list agree.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bench.records import Record, StoredRecord, canonical_json
from bench.stats import seed_spread
from reports.frame import task_table
from reports.memo import Memo

SCENARIOS = ("SS", "SH", "MH")
KNOWLEDGE = {
    "parameters": "Parameters",
    "inversion": "Inversion",
    "features": "Features",
    "real_data": "Oracles (real data; not ranked)",
}
"""Headings of the sections, in their order."""

OTHER_TASKS = "not the same test tasks"


class Row(NamedTuple):
    """What a row stands for; `variant` names settings that tell it from its like."""

    knowledge: str
    method: str
    preset: str
    learner: str
    calibration: str
    variant: str

    @property
    def name(self) -> str:
        """The method as shown."""
        preset = "" if self.preset == "released" else f" ({self.preset})"
        return self.method + preset + (f" [{self.variant}]" if self.variant else "")

    @property
    def head(self) -> str:
        """The learner as shown, with its calibration."""
        return self.learner + ("" if self.calibration == "none" else f" + {self.calibration}")

    @property
    def ranked(self) -> bool:
        """Whether the method is data-free."""
        return self.knowledge != "real_data"


class Setting(NamedTuple):
    """What a column stands for; other image files are another column."""

    datasets: tuple[str, ...]
    n_way: int
    k_shot: int
    digests: tuple[str, ...]

    @property
    def data(self) -> str:
        """The data sets as shown: test tasks are of one, or of all of the scenario together."""
        return self.datasets[0] if len(self.datasets) == 1 else f"all {len(self.datasets)}"


class Result:
    """The records of one row and setting: one for each seed."""

    def __init__(self, stored: Sequence[StoredRecord]):
        self._stored = stored
        ordered = sorted(stored, key=lambda one: one.record.seed)
        self.done = [one for one in ordered if one.record.status == "done"]
        self.missed = [one.record for one in ordered if one.record.status != "done"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The repetitions that have a result."""
        return tuple(one.record.seed for one in self.done)

    @property
    def mean(self) -> float:
        """The mean of the seeds' mean accuracies, a fraction."""
        return float(np.mean([one.record.accuracy.mean for one in self.done]))

    @property
    def ci95(self) -> float:
        """The mean of the seeds' task intervals: tasks of several seeds are never pooled."""
        return float(np.mean([one.record.accuracy.ci95 for one in self.done]))

    @property
    def spread(self) -> float | None:
        """The standard deviation (n - 1) of the seeds' means; None for one seed."""
        if len(self.done) < 2:
            return None
        return seed_spread([one.record.accuracy.mean for one in self.done]).std

    @property
    def task_list(self) -> str | None:
        """The digest of the tasks that all seeds met; None where they met different ones."""
        digests = {one.record.task_list_sha256 for one in self.done}
        return digests.pop() if len(digests) == 1 else None

    def on(self, seeds: Sequence[int]) -> Result:
        """Return the result of some of the seeds."""
        if self.seeds == tuple(seeds):
            return self
        return Result([one for one in self._stored if one.record.seed in seeds])

    @functools.cached_property
    def by_seed(self) -> np.ndarray:
        """The accuracy of each task for each seed, (seeds, n) fractions."""
        return np.stack([task_table(one)[0] for one in self.done])

    @functools.cached_property
    def tasks(self) -> np.ndarray:
        """The accuracy of each task averaged over the seeds, (n,) fractions."""
        return np.mean(self.by_seed, axis=0)

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The classes of each task, (n, n_way), where stored and the same for all seeds."""
        return task_table(self.done[0])[1] if self.task_list else None


class Pair(NamedTuple):
    """Two results on the seeds that both have; without tasks in common there is a reason."""

    a: Result
    b: Result
    reason: str | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that both have."""
        return self.a.seeds


def paired(a: Result | None, b: Result | None) -> Pair:
    """Return two results on the seeds that both have, or why no task can be compared."""
    a, b = a or Result([]), b or Result([])
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if not a.done or not b.done:
        return Pair(a, b, "one of the two has no result")
    if not seeds:
        return Pair(a, b, "no seed in common")
    a, b = a.on(seeds), b.on(seeds)
    if a.task_list is None or a.task_list != b.task_list:
        return Pair(a, b, OTHER_TASKS)
    return Pair(a, b, "a single test task" if a.done[0].record.accuracy.n < 2 else None)


@dataclass(frozen=True)
class Group:
    """Records that may share a table; `name` says what they have in common."""

    name: str
    stored: list[StoredRecord]
    results: dict[tuple[Row, Setting], Result]
    memo: Memo = field(default_factory=Memo)

    @property
    def first(self) -> Record:
        """Any record: the constants are everybody's."""
        return self.stored[0].record

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """The columns, by data set and shots; those of several data sets together last."""
        return sorted({setting for _, setting in self.results}, key=lambda s: (len(s.datasets), s))

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The rows by kind of knowledge, the most accurate first, without result last."""
        return sorted({row for row, _ in self.results}, key=self._rank)

    def _rank(self, row: Row) -> tuple[Any, ...]:
        means = [
            result.mean
            for setting in self.settings
            if (result := self.results.get((row, setting))) and result.done
        ]
        return _place(list(KNOWLEDGE), row.knowledge), not means, -np.mean(means or [0]), row

    def setting_header(self, setting: Setting) -> str:
        """Return a column's two header lines; the digest tells two sets of image files apart."""
        twins = [s for s in self.settings if s[:3] == setting[:3]]
        files = f" @{'+'.join(d[:6] for d in setting.digests)}" if len(twins) > 1 else ""
        return f"{setting.data}{files}\n{setting.n_way}-way {setting.k_shot}-shot"

    def setting_name(self, setting: Setting) -> str:
        """Return the header on one line."""
        return self.setting_header(setting).replace("\n", " ")


def make_groups(stored: Sequence[StoredRecord], memo: Memo | None = None) -> list[Group]:
    """Return the groups of records in the order of their tables."""
    memo = memo or Memo()
    members: dict[tuple[Any, ...], list[StoredRecord]] = defaultdict(list)
    for one in stored:
        members[_group_key(one.record)].append(one)
    names = _group_names([group[0].record for group in members.values()])
    groups = [
        Group(name, group, _results(group), memo)
        for name, group in zip(names, members.values(), strict=True)
    ]

    def order(group: Group) -> tuple[Any, ...]:
        scenario = _place(SCENARIOS, group.first.scenario)
        return scenario, group.first.protocol_label, bool(group.first.variant), group.name

    return sorted(groups, key=order)


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _group_key(record: Record) -> tuple[Any, ...]:
    constants = canonical_json([record.protocol, record.budget])
    return (*_shown_key(record), constants)


def _shown_key(record: Record) -> tuple[Any, ...]:
    teachers = "+".join(record.architectures)
    shape = (record.n_test_tasks, record.n_query)
    return (record.scenario, record.protocol_label, record.net, teachers, *shape)


def _group_names(records: Sequence[Record]) -> list[str]:
    """Name the groups; constants that tell groups of one name apart are spelled out."""
    return [
        f"{r.scenario}, protocol {r.protocol_label}"
        f"{_told_apart(r, [o for o in records if _shown_key(o) == _shown_key(r)])}, "
        f"{r.net} meta-model, {'+'.join(r.architectures)} teachers, {r.n_test_tasks} test tasks"
        for r in records
    ]


def _told_apart(record: Record, alike: Sequence[Record]) -> str:
    differing = _differing([{**one.protocol, **one.budget} for one in alike])
    values = {**record.protocol, **record.budget}
    return "".join(f", {key}={values.get(key)}" for key in differing)


def _differing(dicts: Sequence[dict[str, Any]]) -> list[str]:
    keys = sorted(set().union(*dicts))
    return [k for k in keys if len({canonical_json(one.get(k)) for one in dicts}) > 1]


def _results(stored: Sequence[StoredRecord]) -> dict[tuple[Row, Setting], Result]:
    configs: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in stored:
        for kind, config in _configs(one.record).items():
            configs[kind].append(config)
    places: dict[tuple[Row, Setting], list[StoredRecord]] = defaultdict(list)
    for one in stored:
        record = one.record
        variant = ", ".join(
            f"{key}={config.get(key)}"
            for kind, config in _configs(record).items()
            for key in _differing(configs[kind])
        )
        places[_row(record, variant), _setting(record)].append(one)
    return {place: Result(members) for place, members in places.items()}


def _configs(record: Record) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the method's configuration and the calibration's, by what they are alike in.

    A preset may differ between learners.
    """
    calibration = {f"{record.calibration}.{k}": v for k, v in record.calibration_config.items()}
    return {
        ("method", record.method, record.preset, record.learner): record.method_config,
        ("calibration", record.calibration): calibration,
    }


def _row(record: Record, variant: str) -> Row:
    names = (record.knowledge, record.method, record.preset, record.learner, record.calibration)
    return Row(*names, variant)


def _setting(record: Record) -> Setting:
    digests = tuple(record.dataset_digests.get(name, "") for name in record.datasets)
    return Setting(tuple(record.tested), record.n_way, record.k_shot, digests)
