"""Verdicts on claims, computed from the intervals of paired differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.results.record import Record
from bench.results.store import StoredRecord
from bench.stats import mean_interval
from reports.claims.claims import BUILT_IN, CLAIMS, PROTOCOL, Claim, Side
from reports.rows.groups import Group, make_groups
from reports.rows.results import Pair, Result, Row, Setting, paired

Verdict = Literal["reproduced", "in part", "not reproduced", "not testable here"]
RULE = (
    "A comparison is ahead where the 95 % t interval of its paired difference over the test tasks "
    "lies above 0. Reproduced: all comparisons of the claim are ahead. In part: some are. Not "
    "reproduced: none is. Not testable here: no stored record can be compared. The intervals are "
    "not adjusted for the number of comparisons. One verdict per budget: budgets never share a "
    "verdict."
)


@dataclass(frozen=True)
class Evidence:
    """One comparison: the row claimed to be ahead minus the other, on identical test tasks."""

    group: Group
    setting: Setting
    ahead: Row
    behind: Row
    pair: Pair
    low: float
    mean: float
    high: float

    @property
    def is_ahead(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def stored(self) -> list[StoredRecord]:
        """The records of both sides."""
        return [*self.pair.a.done, *self.pair.b.done]

    @property
    def meta_iterations(self) -> int:
        """The meta-iterations of the budget."""
        return self.group.first.budget["meta_iterations"]


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim under one budget; `budget` is empty where nothing was compared."""

    claim: Claim
    budget: str
    evidence: Sequence[Evidence]

    @property
    def n_ahead(self) -> int:
        """The comparisons whose interval lies above 0."""
        return sum(one.is_ahead for one in self.evidence)

    @property
    def verdict(self) -> Verdict:
        """The verdict, by `RULE`."""
        if not self.evidence:
            return "not testable here"
        if self.n_ahead == len(self.evidence):
            return "reproduced"
        return "in part" if self.n_ahead else "not reproduced"


def judge(stored: Sequence[StoredRecord], claims: Sequence[Claim] = CLAIMS) -> list[Judgement]:
    """Return the verdicts, claim after claim, the smallest budget first.

    Args:
        stored: records, one for each cell; those that test no claim of the paper are passed over.
        claims: what is claimed.

    Raises:
        BenchError: a task table that cannot be read.
    """
    groups = make_groups([one for one in stored if _counts(one.record)])
    return [judgement for claim in claims for judgement in _judgements(claim, groups)]


def _counts(record: Record) -> bool:
    """Tell whether a record tests claims: the papers' protocol, data and trained teachers."""
    plain = record.protocol["name"] == PROTOCOL and not record.variant
    trained = record.protocol["teachers"] == "trained"
    return plain and trained and not set(record.datasets) & BUILT_IN


def _judgements(claim: Claim, groups: Sequence[Group]) -> list[Judgement]:
    found: dict[str, list[Evidence]] = defaultdict(list)
    for group in groups:
        if group.first.scenario in claim.scenarios:
            for pair in claim.pairs:
                found[group.first.budget["name"]] += _evidence(group, *pair)
    judged = [Judgement(claim, name, evidence) for name, evidence in found.items() if evidence]
    ordered = sorted(judged, key=lambda one: max(e.meta_iterations for e in one.evidence))
    return ordered or [Judgement(claim, "", [])]


def _evidence(group: Group, ahead: Side, behind: Side) -> list[Evidence]:
    """Return the comparisons of two sides in a group: of equal learners, in every setting."""
    rows = [
        (a, b)
        for a in group.rows
        for b in group.rows
        if ahead.is_row(a) and behind.is_row(b) and a.learner == b.learner
    ]
    found = [_compared(group, setting, a, b) for a, b in rows for setting in group.settings]
    return [one for one in found if one is not None]


def _compared(group: Group, setting: Setting, a: Row, b: Row) -> Evidence | None:
    sides: list[Result | None] = [group.results.get((row, setting)) for row in (a, b)]
    pair = paired(*sides)
    if pair.reason is not None:
        return None
    mean, low, high = mean_interval(pair.a.tasks - pair.b.tasks)
    return Evidence(group, setting, a, b, pair, low, mean, high)
