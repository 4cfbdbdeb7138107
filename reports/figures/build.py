"""The figures of a set of records, each with file name, caption and text description."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.errors import counted
from bench.stats import Interval, mean_interval
from reports.figures.accuracy import AGAINST, accuracy_figure, against_figure
from reports.figures.cost import COSTS, pareto_figure, throughput_figure
from reports.figures.differences import (
    MIN_SETTINGS,
    Difference,
    difference_figure,
    mean_ranks,
    ranks_figure,
)
from reports.figures.drawing import Drawing
from reports.figures.fits import fit_drawings, pool_drawings
from reports.figures.style import labels
from reports.rows.groups import INFERENCE, Group, on_common_seeds
from reports.rows.results import Pair, Row, best_first, paired
from reports.tables.summary import rate_rows, summary_rows

if TYPE_CHECKING:
    import pandas


MAX_SETTINGS, MAX_DENSE = 8, 6
"""More settings than this are not drawn as panels beside one another; captions say so. The second
is for panels full of names or numbers."""
MAX_ROWS = 20
"""A square of differences shows no more rows than this, the best."""


def group_drawings(group: Group, prefix: str) -> list[Drawing]:
    """Return the figures of one group of records, in the order of reading.

    Args:
        group: records that share tables.
        prefix: beginning of the file names.
    """
    import pandas

    (compared,), seeds = on_common_seeds([group])
    frame = pandas.DataFrame(summary_rows(compared))
    if frame.empty:
        return []
    settings = list(dict.fromkeys(frame["setting"]))
    several = frame[frame["setting"].isin(settings[:MAX_SETTINGS])]
    few = frame[frame["setting"].isin(settings[:MAX_DENSE])]
    dense = [*_said(_costs(few, prefix), seeds), *_differences(group, few, prefix)]
    return [
        *_cut(_said(_accuracy(several, prefix), seeds), MAX_SETTINGS, len(settings)),
        *_cut(dense, MAX_DENSE, len(settings)),
        *_said(_against(frame, ("k_shot",), prefix), seeds),
        *_throughput(group, prefix),
        *_said(_ranks(group, frame, prefix), seeds),
        *fit_drawings(group, prefix),
        *pool_drawings(group, prefix),
    ]


def _cut(drawings: Sequence[Drawing], most: int, n_settings: int) -> list[Drawing]:
    """Add to the captions that settings are left out, if some are."""
    return _said(drawings, f" The first {most} of {n_settings} settings." * (n_settings > most))


def _said(drawings: Sequence[Drawing], words: str) -> list[Drawing]:
    return [replace(one, caption=one.caption + words) for one in drawings]


def _accuracy(frame: pandas.DataFrame, prefix: str) -> list[Drawing]:
    return [
        Drawing(
            f"{prefix}-accuracy",
            "Accuracy",
            "Percent with 95 % interval over test tasks; thin lines: over other test classes and "
            "images too, where the records know the classes. Dotted: guessing.",
            "Accuracy of each method. " + _ranking(frame),
            lambda: accuracy_figure(frame),
        )
    ]


def _ranking(frame: pandas.DataFrame) -> str:
    texts = []
    for setting, part in frame.groupby("setting", sort=False):
        best = part.sort_values("mean", ascending=False).head(3)
        pairs = zip(best["method"], 100 * best["mean"], strict=True)
        names = [f"{method} {mean:.1f} %" for method, mean in pairs]
        texts.append(f"{setting}: {', '.join(names)}.")
    return " ".join(texts)


def across_drawings(groups: Sequence[Group]) -> list[Drawing]:
    """Return accuracy against the size of the pool and the budget, over all groups."""
    import pandas

    some, seed = _on_one_seed(groups)
    frame = pandas.DataFrame([row for group in some for row in summary_rows(group)])
    drawings = [] if frame.empty else _against(frame, ("teachers", "meta_iterations"), "all")
    return _said(drawings, seed)


def _on_one_seed(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """Return groups whose seeds differ on the seed that most results have, with words for it."""
    found = [r.seeds for group in groups for r in group.results.values() if r.done]
    if len(set(found)) < 2:
        return list(groups), ""
    (seed, _), *_ = Counter(itertools.chain(*found)).most_common(1)
    some = [group.on([seed]) for group in groups]
    return [group for group in some if group.stored], f" Seed {seed}."


def _against(frame: pandas.DataFrame, names: Sequence[str], prefix: str) -> list[Drawing]:
    found = []
    frame = frame.assign(label=labels(frame))  # of all rows, so that all figures agree
    for x in names:
        others = [other for other in AGAINST if other != x]
        line = ["scenario", "protocol", "variant", "net", "architectures", "dataset", "n_way"]
        line += ["n_query", "method", "learner", "n_test_tasks"]
        line += [other for other in others if other != "teachers" or x != "meta_iterations"]
        known = frame[frame[x].notna()]
        several = known.groupby(line, dropna=False)[x].transform("nunique") > 1
        kept = known[several].drop_duplicates([*line, x])
        if kept.empty:
            continue
        found.append(
            Drawing(
                f"{prefix}-against-{x.replace('_', '-')}",
                f"Accuracy against {AGAINST[x]}",
                "Percent with 95 % interval over test tasks. Dashed: oracles.",
                f"Accuracy of {kept['method'].nunique()} methods against {AGAINST[x]}.",
                partial(against_figure, kept, x),
            )
        )
    return found


def _costs(frame: pandas.DataFrame, prefix: str) -> list[Drawing]:
    found = []
    for cost, words in COSTS.items():
        known = frame[frame[cost].notna() & (frame[cost] > 0)]
        where = ""
        if cost == "fit_s" and len(known):
            device = known["device"].mode().iloc[0]
            known = known[known["device"] == device]
            where = f" Rows that ran on {device}."
        if len(known) < 2:
            continue
        found.append(
            Drawing(
                f"{prefix}-pareto-{cost.split('_')[0]}",
                f"Accuracy against {words}",
                "Lines join data-free methods that no other of their kind beats in both (Pareto "
                f"fronts): inductive solid, transductive dashed.{where}",
                f"Accuracy against {words}. {_ranking(known)}",
                partial(pareto_figure, known, cost),
            )
        )
    return found


def _throughput(group: Group, prefix: str) -> list[Drawing]:
    import pandas

    device, rows = rate_rows(group)
    frame = pandas.DataFrame(rows)
    if frame.empty or frame["test_tasks_per_s"].isna().all():
        return []
    return [
        Drawing(
            f"{prefix}-throughput",
            "Throughput",
            f"Rates on {device}, mean over settings and seeds, without tests that had kept "
            "embeddings; no point: not done there.",
            "Training tasks, pseudo images and test tasks per second of each method.",
            lambda: throughput_figure(frame),
        )
    ]


def _differences(group: Group, few: pandas.DataFrame, prefix: str) -> list[Drawing]:
    pairs = difference_rows(group, list(dict.fromkeys(few["setting"])))
    if not pairs:
        return []
    names = list(dict.fromkeys(one.row for one in pairs))
    best = names[:MAX_ROWS]
    which = "all" if len(best) == len(names) else f"the {len(best)} of {len(names)}"
    first = "" if len(best) == len(names) else f" that are best in {pairs[0].setting}"
    shown = [p for p in pairs if p.row in best and p.column in best]
    n = sum(pair.two_pools for pair in shown)
    pools = f" {n} of the {len(shown)} are of two pools of teachers, trained alike." * (n > 0)
    return [
        Drawing(
            f"{prefix}-differences",
            "Paired differences",
            "Row minus column in points, on the same tasks and the seeds that both have, of "
            f"{which} data-free rows{first}; in brackets: the 95 % t interval contains 0.{pools}",
            f"Square of paired differences between {which} data-free rows{first}, one panel per "
            "setting.",
            lambda: difference_figure(shown),
        )
    ]


def _ranks(group: Group, frame: pandas.DataFrame, prefix: str) -> list[Drawing]:
    """Return a rank diagram of the inductive rows, and one of the transductive ones.

    Data sets together are no setting beside each of them alone.
    """
    single = [group.setting_name(one) for one in group.settings if len(one.datasets) == 1]
    free = frame[frame["knowledge"] != "real_data"]
    free = free[free["setting"].isin(single)] if single else free
    kinds = [(kind, free[free["inference"] == kind]) for kind in INFERENCE]
    return [one for kind, rows in kinds for one in _ranks_of(kind, rows, prefix)]


def _ranks_of(inference: str, rows: pandas.DataFrame, prefix: str) -> list[Drawing]:
    if rows["setting"].nunique() < MIN_SETTINGS or len(ranks := mean_ranks(rows)) <= 2:
        return []
    left_out = len(set(labels(rows))) - len(ranks)
    words = f" Left out: {counted(left_out, 'row')} without a result in one." * (left_out > 0)
    return [
        Drawing(
            f"{prefix}-ranks-{inference}",
            f"Mean ranks: {inference} rows",
            "Critical-difference diagram (Nemenyi, 5 %): bars join what cannot be told apart, if "
            f"the settings were independent; shots of one data set are not.{words}",
            f"Mean rank of each {inference} data-free method over the settings.",
            lambda: ranks_figure(rows),
        )
    ]


def difference_rows(group: Group, settings: Sequence[str]) -> list[Difference]:
    """Return all ordered pairs of data-free rows on the same tasks, best row first."""
    rows = []
    for setting in group.settings:
        name = group.setting_name(setting)
        if name not in settings:
            continue
        done = {
            row: result
            for row in group.rows
            if row.ranked and (result := group.results.get((row, setting))) and result.done
        }
        order = best_first(done)
        rows += [
            Difference(
                name,
                _shown(a, group.rows),
                _shown(b, group.rows),
                *_difference(pair),
                pair.has_two_pools,
            )
            for a in order
            for b in order
            if a != b and (pair := paired(done[a], done[b])).reason is None
        ]
    return rows


def _shown(row: Row, rows: Sequence[Row]) -> str:
    several = sum(other.full_name == row.full_name for other in rows) > 1
    return f"{row.full_name} · {row.head}" if several else row.full_name


def _difference(pair: Pair) -> Interval:
    return mean_interval(pair.a.tasks - pair.b.tasks)
