"""Accuracy against the share of a pool's teachers that cannot be trusted, a line per method."""

from __future__ import annotations

from collections.abc import Sequence

from bench.results.files import canonical_json
from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.drawing import Drawing
from reports.figures.lines import in_words, line_rows, lines_figure, seeds_said
from reports.rows.results import Row

SHARE, KIND = "untrustworthy_share", "untrustworthy_kind"
SUITE = "untrustworthy"


def shown_records(stored: Sequence[StoredRecord], dataset: str) -> list[StoredRecord]:
    """Return the records that the figure of a data set is made of.

    Cells without untrustworthy teachers may be stored in another suite that has them, too.
    """
    trained = [one for one in stored if _is_trained(one.record, dataset)]
    lines = {_line(one.record) for one in trained if one.record.suite == SUITE}
    return [one for one in trained if _line(one.record) in lines]


def _is_trained(record: Record, dataset: str) -> bool:
    trained = record.protocol["teachers"] == "trained" and record.protocol[KIND] == "accuracy"
    return trained and record.datasets == [dataset]


def _line(record: Record) -> str:
    """Return all that the cells of one line and k_shot have in common, as JSON."""
    protocol = {name: value for name, value in record.protocol.items() if name != SHARE}
    parts = (record.architectures, record.net, record.method, record.preset, record.method_config)
    counts = (record.k_shot, record.n_query, record.n_test_tasks, record.seed, record.budget)
    return canonical_json([protocol, *parts, record.learner, record.calibration, *counts])


def untrustworthy_drawing(stored: Sequence[StoredRecord], dataset: str) -> Drawing | None:
    """Return accuracy against the share of untrustworthy teachers; None for a single share.

    Args:
        stored: records, one for each cell, see `shown_records`.
        dataset: whose test tasks were scored.
    """
    import pandas

    lines = pandas.DataFrame(line_rows(stored, _name, lambda one: 100 * one.protocol[SHARE]))
    if lines.empty or lines["x"].nunique() < 2:
        return None
    seeds = seeds_said(stored)
    return Drawing(
        "untrustworthy",
        "Accuracy against the share of untrustworthy teachers",
        "Test accuracy in percent with its 95 % interval over tasks; the untrustworthy teachers "
        "have random weights and report 99 % held-out accuracy. Dotted: guessing."
        f"{seeds}",
        f"Accuracy on {dataset} against the share of untrustworthy teachers.{seeds} "
        f"{in_words(lines, 'at {:.0f} %')}.",
        lambda: lines_figure(lines, "untrustworthy teachers, % of the pool", chance=True),
    )


def _name(row: Row, record: Record) -> str:
    return f"{row.name} · {row.head}"
