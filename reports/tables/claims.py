"""The claims as tables: verdicts at a glance, what was compared, and each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from bench.errors import counted
from bench.results.store import RECORD, StoredRecord
from reports.claims.claims import PUBLISHED_META_ITERATIONS
from reports.claims.verdicts import RULE, Evidence, Judgement, judge
from reports.tables.caption import origin_sentence
from reports.tables.paired import TWO_POOLS, signed
from reports.tables.table import Column, Entry, Footnotes, Section, Table, label

KINDS = ("verdicts", "claims", "evidence")
_TITLE = "Does PURER's claim reproduce?"


def claims_tables(stored: Sequence[StoredRecord], kinds: Sequence[str] = KINDS) -> list[Table]:
    """Return the tables of the paper's claims; none where no record tests any of them.

    Args:
        stored: records, one for each cell.
        kinds: which of `KINDS`; they come in that order.

    Raises:
        BenchError: a task table that cannot be read.
    """
    judged = judge(stored)
    if not any(one.evidence for one in judged):
        return []
    make = {"verdicts": _verdicts, "claims": _claims, "evidence": _evidence}
    return [make[kind](judged) for kind in KINDS if kind in kinds]


def _verdicts(judged: Sequence[Judgement]) -> Table:
    """One line per claim: the verdict under each budget that was run."""
    rows = []
    for text, members in groupby(judged, key=lambda one: one.claim.text):
        verdicts = "; ".join(_verdict(one) for one in members)
        rows.append([label(text), label(verdicts)])
    columns = [
        Column("claim of the abstract", numeric=False, wraps=True),
        Column("verdict", "verdict", numeric=False, wraps=True),
    ]
    return Table("verdicts", f"{_TITLE} Verdicts", columns, [Section("", rows)], RULE)


def _verdict(one: Judgement) -> str:
    if not one.evidence:
        return one.verdict
    counts = f"{one.n_ahead} of {counted(len(one.evidence), 'comparison')} ahead"
    return f"{one.verdict} ({counts}; budget {one.budget}, {_share(one.evidence)})"


def _share(evidence: Sequence[Evidence]) -> str:
    """Return which share of the published meta-iterations was run."""
    counts = sorted({one.meta_iterations for one in evidence})
    shares = [f"{100 * n / PUBLISHED_META_ITERATIONS:.2g}" for n in (counts[0], counts[-1])]
    return f"{'–'.join(dict.fromkeys(shares))} % of the published meta-iterations"


def _claims(judged: Sequence[Judgement]) -> Table:
    """One line per claim and budget, with what stands in the way in the footnotes."""
    notes = Footnotes()
    rows = []
    for one in judged:
        marks = (
            notes.number(f"published number: {one.claim.published}"),
            notes.number(f"limits: {one.claim.limits}"),
        )
        rows.append([Entry(one.claim.text, notes=marks), *_summary(one, notes), label(one.verdict)])
    columns = [
        Column("claim of the abstract", numeric=False, wraps=True),
        Column("data sets", "where", numeric=False, wraps=True),
        Column("budget", "budget", numeric=False, wraps=True),
        Column("comparisons ahead", "ahead"),
        Column("difference in points: median (least, greatest)", "difference"),
        Column("verdict", "verdict", numeric=False),
    ]
    stored = _records(judged)
    caption = (
        f"{RULE} Differences: a row with PURER or ICFIL minus the row that it is claimed to beat, "
        f"with the same learner, on identical test tasks. {origin_sentence(stored)}"
    )
    return Table("claims", _TITLE, columns, [Section("", rows)], caption, notes=notes.texts)


def _summary(one: Judgement, notes: Footnotes) -> list[Entry]:
    if not one.evidence:
        return [label("–")] * 4
    data = sorted({name for e in one.evidence for name in e.setting.datasets})
    counts = sorted({e.meta_iterations for e in one.evidence})
    span = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    means = [e.mean for e in one.evidence]
    spread = f"{signed(float(np.median(means)))} ({signed(min(means))}, {signed(max(means))})"
    return [
        label(", ".join(data)),
        label(f"{one.budget}: {span} meta-iterations, {_share(one.evidence)}"),
        Entry(f"{one.n_ahead} of {len(one.evidence)}", notes=_two_pools(one, notes)),
        label(spread),
    ]


def _two_pools(one: Judgement, notes: Footnotes) -> tuple[int, ...]:
    """Return the footnote that counts the comparisons of two pools; none without any."""
    n = sum(e.pair.has_two_pools for e in one.evidence)
    text = f"{n} of these {len(one.evidence)} {'is' if n == 1 else 'are'} {TWO_POOLS}"
    return (notes.number(text),) if n else ()


def _evidence(judged: Sequence[Judgement]) -> Table:
    """One line per comparison, claim after claim."""
    notes = Footnotes()
    sections = [
        Section(
            f"{one.claim.text}: {one.verdict} (budget {one.budget})",
            [_line(e, notes) for e in sorted(one.evidence, key=_place)],
        )
        for one in judged
        if one.evidence
    ]
    columns = [
        Column("row", numeric=False),
        Column("compared with", numeric=False),
        Column("setting", "setting", numeric=False),
        Column("meta-iterations", "counts"),
        Column("seeds", "counts", numeric=False),
        Column("difference in points", "difference"),
        Column("records", "records", numeric=False),
    ]
    caption = (
        "Mean paired difference with its 95 % t interval over the test tasks; with several seeds "
        "each task's accuracy is averaged over the seeds that both rows have. "
        f"Records: of the first of these seeds. {origin_sentence(_records(judged))}"
    )
    title = f"{_TITLE} Each comparison"
    return Table("evidence", title, columns, sections, caption, "ahead", notes.texts)


def _place(one: Evidence) -> tuple[object, ...]:
    return one.ahead, one.behind, one.setting, one.meta_iterations


def _line(one: Evidence, notes: Footnotes) -> list[Entry]:
    interval = f"{signed(one.mean)} [{signed(one.low)}, {signed(one.high)}]"
    setting = f"{one.group.first.scenario} {one.group.setting_name(one.setting)}"
    first = [side.done[0] for side in (one.pair.a, one.pair.b)]
    marks = (notes.number(TWO_POOLS),) if one.pair.has_two_pools else ()
    return [
        label(f"{one.ahead.name}, {one.ahead.head}"),
        label(f"{one.behind.name}, {one.behind.head}"),
        label(setting),
        label(str(one.meta_iterations)),
        label(", ".join(map(str, one.pair.seeds))),
        Entry(interval, strong=one.is_ahead, notes=marks),
        Entry("", links=tuple((s.record.cell_hash[:8], s.folder / RECORD) for s in first)),
    ]


def _records(judged: Sequence[Judgement]) -> list[StoredRecord]:
    found = {s.record.cell_hash: s for one in judged for e in one.evidence for s in e.stored}
    return list(found.values())
