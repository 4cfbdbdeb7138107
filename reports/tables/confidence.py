"""The table of confidence: whether what a method is sure of is right, from the margins it kept."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.results.memo import Memo
from bench.results.predictions import Predictions, stored_predictions
from bench.results.store import PREDICTIONS, StoredRecord
from reports.rows.groups import Group, on_common_seeds
from reports.rows.results import Result, Row, Setting
from reports.tables.accuracy import name_columns, row_names
from reports.tables.caption import origin_sentence, protocol_sentence
from reports.tables.table import Column, Section, Table, label

HEADERS = ("accuracy %", "confidence at least %", "confidence at most %", "surer half %", "AUROC")
OVER = "!"
"""Marks a confidence that is above the accuracy whatever the other logits were."""


class Confidence(NamedTuple):
    """What margins say of a method's answers; all fractions, over all queries.

    With K classes and margin m, softmax gives the predicted class at least 1 / (1 + (K - 1) e^-m),
    where all other logits equal the second largest, and at most 1 / (1 + e^-m), where they vanish:
    `least` and `most` are the means of both. `surer` is the accuracy on the half of the queries
    with the larger margins; `auroc` the share of pairs of a right and a wrong answer of which the
    right one has the larger margin, ties as one half (Fawcett, 2006); None without such a pair.
    """

    accuracy: float
    least: float
    most: float
    surer: float
    auroc: float | None


def confidence(found: Predictions, n_way: int) -> Confidence:
    """Return what the margins of some answers say."""
    right, margin = found.hits.ravel(), found.margin.ravel().astype(np.float64)
    others = np.exp(-margin)
    order = np.argsort(-margin, kind="stable")
    return Confidence(
        accuracy=float(right.mean()),
        least=float((1 / (1 + (n_way - 1) * others)).mean()),
        most=float((1 / (1 + others)).mean()),
        surer=float(right[order[: -(-len(order) // 2)]].mean()),
        auroc=_auroc(right, margin),
    )


def _auroc(right: np.ndarray, margin: np.ndarray) -> float | None:
    """Return the share of pairs in which the right answer has the larger margin, ties as halves.

    Counted here, since `scipy.stats` takes a second to import.
    """
    surest, wrong = margin[right], np.sort(margin[~right])
    if not len(surest) or not len(wrong):
        return None
    less, no_more = (np.searchsorted(wrong, surest, side) for side in ("left", "right"))
    return float((less + no_more).sum()) / 2 / (len(surest) * len(wrong))


def confidence_table(group: Group) -> Table | None:
    """Return the table of a group; None where no row's records hold predictions."""
    (some,), seeds = on_common_seeds([group])
    parts = {setting: _rows(some, setting) for setting in group.settings}
    rows = [row for some in parts.values() for row in some]
    if not rows:
        return None
    sections = [
        Section(
            group.setting_name(setting),
            [[*row_names(row, rows), *map(label, _texts(one))] for row, one in some.items()],
        )
        for setting, some in parts.items()
        if some
    ]
    return Table(
        kind="confidence",
        title=f"Confidence: {group.name}",
        columns=[*name_columns(rows), *(Column(name, name) for name in HEADERS)],
        sections=sections,
        caption=(
            f"Of the rows whose records hold predictions.{seeds} "
            "Mean confidence (softmax) in the predicted class, between bounds that follow from the "
            f"margin of the two largest logits; {OVER}: above the accuracy in any case, so "
            "overconfident. Surer half: accuracy on the half of the queries with the larger "
            "margins. AUROC: share of pairs of a right and a wrong answer of which the right one "
            f"has the larger margin. {protocol_sentence(group)} {origin_sentence(group.stored)}"
        ),
    )


def _rows(group: Group, setting: Setting) -> dict[Row, Confidence]:
    rows = [row for row in group.rows if (r := group.results.get((row, setting))) and r.done]
    rows.sort(key=lambda row: -group.results[row, setting].mean)
    found = {row: _confidence(group.results[row, setting], group.memo) for row in rows}
    return {row: one for row, one in found.items() if one is not None}


def _confidence(result: Result, memo: Memo) -> Confidence | None:
    """Return what the margins of all seeds say; None where one keeps no answers."""
    found = [_of_record(one, memo) for one in result.done]
    parts = [one for one in found if one is not None]
    if len(parts) < len(found):
        return None
    aurocs = [one.auroc for one in parts if one.auroc is not None]
    accuracy, least, most, surer = np.mean([one[:4] for one in parts], axis=0).tolist()
    auroc = float(np.mean(aurocs)) if aurocs else None
    return Confidence(accuracy, least, most, surer, auroc)


def _of_record(stored: StoredRecord, memo: Memo) -> Confidence | None:
    """Return what the margins of a record say; None where it keeps no answers that can be read."""
    if not stored.has(PREDICTIONS):
        return None
    n_way = stored.record.n_way

    def numbers() -> list[float]:
        if (found := stored_predictions(stored)) is None:
            raise BenchError(f"{stored.folder} keeps no answers")
        return [one for one in confidence(found, n_way) if one is not None]

    content = np.frombuffer((stored.folder / PREDICTIONS).read_bytes(), np.uint8)
    try:
        accuracy, least, most, surer, *auroc = memo.numbers("confidence", [content], numbers, n_way)
    except BenchError:
        return None
    return Confidence(accuracy, least, most, surer, auroc[0] if auroc else None)


def _texts(one: Confidence) -> list[str]:
    mark = f" {OVER}" if one.least > one.accuracy else ""
    numbers = [f"{100 * one.accuracy:.1f}", f"{100 * one.least:.1f}{mark}", f"{100 * one.most:.1f}"]
    return [*numbers, f"{100 * one.surer:.1f}", "–" if one.auroc is None else f"{one.auroc:.2f}"]
