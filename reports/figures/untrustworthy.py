"""Accuracy against the share of a pool's teachers that cannot be trusted, a line per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.results.files import canonical_json
from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.drawing import Drawing
from reports.figures.lines import lines_figure
from reports.rows.groups import Group, make_groups

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

    lines = pandas.DataFrame([row for group in make_groups(stored) for row in _rows(group)])
    if lines.empty or lines["x"].nunique() < 2:
        return None
    points = "; ".join(
        f"{row['line']} {row['k_shot']}-shot at {row['x']:.0f} %: {100 * row['mean']:.1f} %"
        for row in lines.sort_values(["k_shot", "line", "x"]).to_dict("records")
    )
    return Drawing(
        "untrustworthy",
        "Accuracy against the share of untrustworthy teachers",
        "Test accuracy in percent with its 95 % interval over tasks; the untrustworthy teachers "
        "have random weights and report 99 % held-out accuracy. Dotted: guessing.",
        f"Accuracy on {dataset} against the share of untrustworthy teachers. {points}.",
        lambda: lines_figure(lines, "untrustworthy teachers, % of the pool", chance=True),
    )


def _rows(group: Group) -> list[dict[str, Any]]:
    """Return the results of a group as rows; percent of the pool, other values fractions."""
    return [
        {
            "line": f"{row.method}{f' ({row.preset})' * (row.preset != 'released')} · {row.head}",
            "x": 100 * group.first.protocol[SHARE],
            "k_shot": setting.k_shot,
            "n_way": setting.n_way,
            "mean": result.mean,
            "ci95": result.ci95,
        }
        for (row, setting), result in group.results.items()
        if result.done
    ]
