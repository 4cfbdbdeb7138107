"""Groups of records that may share a table: methods × settings, with the seeds inside.

Numbers share a table only where scenario, protocol label, every constant and count behind that
label, meta-model, pool architectures, and the size of the task list agree.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.errors import counted
from bench.results.community import origin_of
from bench.results.files import canonical_json
from bench.results.memo import Memo
from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.rows.results import Result, Row, Setting

SCENARIOS = ("SS", "SH", "MH")
KNOWLEDGE = {
    "parameters": "Parameters",
    "inversion": "Inversion",
    "features": "Features",
    "real_data": "Oracles (real data; not ranked)",
}
"""Kinds of knowledge as headings, in their order; the last stands by itself."""
INFERENCE = ("inductive", "transductive")
"""Rows of the one are not ranked among those of the other."""


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
        """The rows in the order of their sections, the most accurate first, no result last."""
        return sorted({row for row, _ in self.results}, key=self._rank)

    def _rank(self, row: Row) -> tuple[Any, ...]:
        means = [
            result.mean
            for setting in self.settings
            if (result := self.results.get((row, setting))) and result.done
        ]
        return *section_place(row), not means, -np.mean(means or [0]), row

    def rivals(self, setting: Setting) -> list[dict[Row, Result]]:
        """Return the data-free results of a column in the sets that are ranked: by inference."""
        done = {
            row: result
            for row in self.rows
            if row.ranked and (result := self.results.get((row, setting))) and result.done
        }
        sets = [{r: done[r] for r in done if r.inference == name} for name in INFERENCE]
        return [one for one in sets if one]

    def on(self, seeds: Sequence[int]) -> Group:
        """Return the group with the records of some of its seeds."""
        stored = [one for one in self.stored if one.record.seed in seeds]
        results = {place: result.on(seeds) for place, result in self.results.items()}
        return Group(self.name, stored, results, self.memo)

    def rows_of(self, setting: Setting) -> list[Row]:
        """Return the rows that have a cell in a column, done or not."""
        return [row for row in self.rows if (row, setting) in self.results]

    def setting_data(self, setting: Setting) -> str:
        """Return a column's data as shown; the digest tells two sets of image files apart."""
        twins = [s for s in self.settings if s[:3] == setting[:3]]
        files = f" @{'+'.join(d[:6] for d in setting.digests)}" if len(twins) > 1 else ""
        return f"{setting.data}{files}"

    def setting_header(self, setting: Setting) -> str:
        """Return a column's two header lines."""
        return f"{self.setting_data(setting)}\n{setting.n_way}-way {setting.k_shot}-shot"

    def setting_name(self, setting: Setting) -> str:
        """Return the header on one line."""
        return self.setting_header(setting).replace("\n", " ")


def on_common_seeds(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """Return groups on the seeds that all their results have, and these in words for a caption.

    Another seed is another pool: means of different seeds do not compare. Without a seed that all
    have, or with the same seeds everywhere, the groups are as they were and there are no words.
    """
    found = {result.seeds for group in groups for result in group.results.values() if result.done}
    seeds = sorted(set.intersection(*map(set, found))) if len(found) > 1 else []
    if not seeds:
        return list(groups), ""
    word = "Seed" if len(seeds) == 1 else "Seeds"
    words = f" {word} {', '.join(map(str, seeds))}, which all have."
    return [group.on(seeds) for group in groups], words


def section_place(row: Row) -> tuple[int, int]:
    """Return the place of a row's section: by inference, then knowledge, the oracles last."""
    inference = _place(INFERENCE, row.inference) if row.ranked else len(INFERENCE)
    return inference, _place(list(KNOWLEDGE), row.knowledge)


def section_heading(row: Row) -> str:
    """Return the heading of a row's section, as `Inductive, features`."""
    knowledge = KNOWLEDGE.get(row.knowledge, row.knowledge)
    return f"{row.inference.capitalize()}, {knowledge.lower()}" if row.ranked else knowledge


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
        f"{r.net} meta-model, {'+'.join(r.architectures)} teachers, "
        f"{counted(r.n_test_tasks, 'test task')}"
        for r in records
    ]


def _told_apart(record: Record, alike: Sequence[Record]) -> str:
    differing = _differing([{**one.protocol, **one.budget} for one in alike])
    values = {**record.protocol, **record.budget}
    return "".join(f", {key}={values.get(key)}" for key in differing)


def _differing(dicts: Sequence[dict[str, Any]]) -> list[str]:
    keys = sorted(set().union(*dicts))
    return [k for k in keys if any(one.get(k) != dicts[0].get(k) for one in dicts)]


def _results(stored: Sequence[StoredRecord]) -> dict[tuple[Row, Setting], Result]:
    added = _added_since([one.record for one in stored])
    configs: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in stored:
        for kind, config in _configs(one.record, added).items():
            configs[kind].append(config)
    differing = {kind: _differing(alike) for kind, alike in configs.items()}
    places: dict[tuple[Row, Setting], list[StoredRecord]] = defaultdict(list)
    for one in stored:
        record = one.record
        variant = ", ".join(
            f"{key}={config.get(key)}"
            for kind, config in _configs(record, added).items()
            for key in differing[kind]
        )
        row = _row(record, variant, origin_of(one.folder, record.cell_hash))
        places[row, _setting(record)].append(one)
    return {place: Result(members) for place, members in places.items()}


def _added_since(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the settings that each method has gained, with the values that change nothing.

    They are those that a record holds and its hash leaves out (`bench.contract.added`).
    """
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for record in records:
        cell = (record.identity or {}).get("cell")
        hashed = cell.get("method_config") if isinstance(cell, dict) else None
        if isinstance(hashed, dict):
            new = {k: v for k, v in record.method_config.items() if k not in hashed}
            found[record.method] |= new
    return found


def _configs(
    record: Record, added: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return what may tell the cells of one row and seed apart, by what they are alike in.

    The method's configuration and the calibration's, versions of plug-ins, an imported pool. A
    preset may differ between learners. What the method has gained since an older record was
    written stands at the value that it had then.
    """
    calibration = {f"{record.calibration}.{k}": v for k, v in record.calibration_config.items()}
    who = record.method, record.learner, record.calibration
    return {
        ("method", record.method, record.preset, record.learner): {
            **added.get(record.method, {}),
            **record.method_config,
        },
        ("calibration", record.calibration): calibration,
        ("version", *who): {"version": versions_of(record)},
        **({("pool",): {"pool": record.pool.name or "trained"}} if record.pool else {}),
    }


def versions_of(record: Record) -> str:
    """Return the versions above 1 of what a cell was made with, as its hash has them."""
    cell = (record.identity or {}).get("cell")
    versions = cell.get("versions", {}) if isinstance(cell, dict) else {}
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items())) or "1"


def _row(record: Record, variant: str, origin: str) -> Row:
    r = record
    names = (r.knowledge, r.inference, r.method, r.preset, r.learner, r.calibration)
    return Row(*names, variant, origin)


def _setting(record: Record) -> Setting:
    digests = tuple(record.dataset_digests.get(name, "") for name in record.datasets)
    return Setting(tuple(record.tested), record.n_way, record.k_shot, digests)
