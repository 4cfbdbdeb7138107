"""What some records say in three sentences: what is best, what it costs, what not to conclude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.errors import counted
from bench.results.record import Record
from reports.claims.claims import PUBLISHED_META_ITERATIONS
from reports.rows.groups import INFERENCE, Group
from reports.rows.results import Result, Row
from reports.tables.chance import meta_iterations
from reports.tables.cost import amount, rate
from reports.tables.paired import signed
from reports.tables.summary import Leader, leaders

WRITTEN_OUT = 2
"""Settings whose numbers a sentence gives one by one; of more, it gives the range."""
MOST_NAMED = 3
"""Methods that the first sentence names."""
NO_FIT = 0.01
"""Seconds; a shorter fit trained nothing."""


class Sentences(NamedTuple):
    """Plain text: what is best without data, its cost, what not to conclude."""

    best: str
    cost: str
    caution: str


Wins = list[tuple[Group, Leader]]


def sentences(groups: Sequence[Group]) -> Sentences | None:
    """Return what the groups of a report say; None where no data-free row has a result."""
    found = {kind: won for kind in INFERENCE if (won := _won(groups, kind))}
    if not found:
        return None
    best = " ".join(
        " ".join((f"{kind.capitalize()}:", *_bests(won))) for kind, won in found.items()
    )
    cost = _cost([won[0] for won in found.values()], groups)
    return Sentences(best, cost, _caution(groups))


def _won(groups: Sequence[Group], inference: str) -> list[tuple[str, Wins]]:
    """Return the rows of a kind of inference that lead settings, those of the most first.

    A row alone leads nothing, unless there are no others anywhere.
    """
    led = [(g, one) for g in groups for one in leaders(g) if one.row.inference == inference]
    rivalled = [(group, one) for group, one in led if one.next_row is not None]
    won: dict[str, Wins] = {}
    for group, one in rivalled or led:
        won.setdefault(shown_row(one.row, *groups), []).append((group, one))
    return sorted(won.items(), key=lambda item: -len(item[1]))


def _bests(won: Sequence[tuple[str, Wins]]) -> list[str]:
    n_settings = sum(len(wins) for _, wins in won)
    return [_best(name, wins, n_settings) for name, wins in won[:MOST_NAMED]]


def shown_row(row: Row, *groups: Group) -> str:
    """Return a method, with its learner where the groups have it with several."""
    name = row.full_name
    several = {other.head for one in groups for other in one.rows if other.full_name == name}
    return f"{name} · {row.head}" if len(several) > 1 or "+" in row.head else name


def _best(name: str, wins: Wins, n_settings: int) -> str:
    """Say where a row is best, its accuracy, and its lead over the next row."""
    if len(wins) > WRITTEN_OUT:
        return _best_of_many(name, wins, n_settings)
    datasets = {one.setting.data for _, one in wins}
    shapes = [f"{one.setting.n_way}-way {one.setting.k_shot}-shot" for _, one in wins]
    of_many = n_settings > len(wins) or len(datasets) > 1
    where = [f"{one.setting.data} {s}" for (_, one), s in zip(wins, shapes, strict=True)]
    accuracies = " and ".join(f"{100 * one.result.mean:.1f}" for _, one in wins)
    leads = [_lead(one, group) for group, one in wins]
    behind = {other for _, other in leads}
    if len(behind) == 1:
        lead = " and ".join(text for text, _ in leads if text) + behind.pop()
    else:
        lead = " and ".join(f"{text}{other}" for text, other in leads)
    return f"{name} {accuracies} % ({', '.join(where if of_many else shapes)}), {lead}."


def _lead(leader: Leader, group: Group) -> tuple[str, str]:
    """Return the lead in points with its interval, and over what it is."""
    if leader.next_row is None:
        return "", "nothing to compare with"
    other = shown_row(leader.next_row, group)
    if leader.lead is None:
        tasks = "on a single task" if leader.result.n_tasks == 1 else "on other tasks"
        return "", f"{other} next, {tasks}"
    text = f"{signed(leader.lead.mean)} [{signed(leader.lead.low)}, {signed(leader.lead.high)}]"
    if leader.next_row in leader.ties:
        return text, f" points, tied with {other}{leader.remark}"
    return text, f" points over {other}{leader.remark}"


def _best_of_many(name: str, wins: Wins, n_settings: int) -> str:
    leads = [one.lead.mean for _, one in wins if one.lead is not None]
    clear = sum(one.clear for _, one in wins)
    span = f", by {100 * min(leads):.1f} to {100 * max(leads):.1f} points" if leads else ""
    return (
        f"{name}: best in {len(wins)} of {n_settings} settings{span} over the next row, clearly in "
        f"{clear}."
    )


def _cost(firsts: Sequence[tuple[str, Wins]], groups: Sequence[Group]) -> str:
    """Say what the row with the most wins of each kind costs, the first's next, the longest fit."""
    prices: dict[str, str] = {}
    for name, wins in firsts:
        group, leader = wins[0]
        prices[name] = _price(leader.result)
        if leader.next_row is not None and len(prices) == 1:
            result = group.results[leader.next_row, leader.setting]
            prices.setdefault(shown_row(leader.next_row, group), _price(result))
    longest = max((fit for group in groups for fit in _fits(group)), default=None)
    slow = f" Longest fit: {longest[1]}, {rate(longest[0])} s." if longest else ""
    texts = "; ".join(f"{name}: {price}" for name, price in prices.items())
    return f"{texts} per query image.{slow}"


def _fits(group: Group) -> list[tuple[float, str]]:
    """Return the mean seconds of each row's longest fit in a group, with its name."""
    found = []
    for (row, _), result in group.results.items():
        seconds = _mean([one.record.fit_seconds for one in result.done])
        if seconds is not None and seconds > NO_FIT:
            found.append((seconds, shown_row(row, group)))
    return found


def _price(result: Result) -> str:
    records = [one.record for one in result.done]
    fit = _mean([r.fit_seconds for r in records])
    macs = _mean([r.cost.macs_per_query_image for r in records])
    texts = []
    if fit is not None:
        texts.append(f"fit {rate(fit)} s" if fit > NO_FIT else "no training")
    if macs:
        texts.append(f"{amount(macs)} MACs")
    return ", ".join(texts) or "an unknown cost"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _caution(groups: Sequence[Group]) -> str:
    """Say what the records do not show."""
    records = [one.record for group in groups for one in group.stored]
    found = [_pools(groups), _tasks(records), _published(records)]
    if any(r.protocol.get("teachers") == "untrained" for r in records):
        found.insert(0, "The teachers are untrained: accuracies compare nothing.")
    if len(groups) > 1:
        found.append("Numbers of different tables do not compare.")
    return " ".join(filter(None, found))


def _pools(groups: Sequence[Group]) -> str:
    seeds = max(len({one.record.seed for one in group.stored}) for group in groups)
    if seeds == 1:
        pools = {one.record.pool.sha256 for g in groups for one in g.stored if one.record.pool}
        found = "One seed" if len(pools) > 1 else "One pool, one seed"
        return f"{found}: ± covers the test tasks, not other teachers or other classes."
    return f"{seeds} seeds at most: ± covers the test tasks; other classes are not covered."


def _tasks(records: Sequence[Record]) -> str:
    fewest = min(r.n_test_tasks for r in records)
    return f"Only {counted(fewest, 'test task')}." if fewest < 200 else ""


def _published(records: Sequence[Record]) -> str:
    """Say how far PURER's fits are from the published ones, where there are any."""
    counts = [meta_iterations(r) for r in records if r.method == "purer"]
    few = [n for n in counts if n < PUBLISHED_META_ITERATIONS]
    if not few:
        return ""
    span = f"{min(few):,}" if min(few) == max(few) else f"{min(few):,} to {max(few):,}"
    return (
        f"PURER ran {span} of the published {PUBLISHED_META_ITERATIONS:,} meta-iterations: its "
        "rows show this budget, not the method's best."
    )
