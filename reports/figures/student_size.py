"""Accuracy of one student against its training steps, a line per network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.results.files import canonical_json
from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.drawing import Drawing
from reports.figures.lines import in_words, line_rows, lines_figure, seeds_said
from reports.rows.results import Row

if TYPE_CHECKING:
    import pandas

SUITE = "student_size"
STUDENT = "distill_ensemble"
OTHERS = {("ensemble_centroids", "tuned", "none"), ("teacher_centroids", "released", "none")}
"""Method, preset and calibration of what is drawn beside the students."""


def shown_records(stored: Sequence[StoredRecord], dataset: str) -> list[StoredRecord]:
    """Return the records that the figure of a data set is made of.

    The rows beside the students may be stored in another suite that has them, too.
    """
    same = [one for one in stored if one.record.datasets == [dataset]]
    students = [one for one in same if one.record.suite == SUITE and one.record.method == STUDENT]
    pools = {_pool(one.record) for one in students}
    others = [one for one in same if _name(one.record) in OTHERS and _pool(one.record) in pools]
    return [*students, *others]


def _name(record: Record) -> tuple[str, str, str]:
    return record.method, record.preset, record.calibration


def _pool(record: Record) -> str:
    """Return what students and other rows have in common, as JSON."""
    counts = (record.n_query, record.n_test_tasks, record.seed, record.budget)
    return canonical_json([record.scenario, record.architectures, record.protocol, *counts])


def student_size_drawing(stored: Sequence[StoredRecord], dataset: str) -> Drawing | None:
    """Return accuracy against training steps; None where no number of steps has a neighbour.

    Args:
        stored: records, one for each cell, see `shown_records`.
        dataset: whose test tasks were scored.
    """
    import pandas

    rows = line_rows(stored, _line, lambda one: one.method_config.get("steps"))
    students = pandas.DataFrame([row for row in rows if row["x"] is not None])
    if students.empty or students["x"].nunique() < 2:
        return None
    others = pandas.DataFrame(
        [row for row in rows if row["x"] is None], columns=["line", "k_shot", "mean"]
    )
    seeds = seeds_said(stored)
    return Drawing(
        "student-size",
        "Accuracy of one student against its training steps",
        "Test accuracy in percent with its 95 % interval over tasks. In brackets: parameters, and "
        "multiply-accumulates for one image. Dashed: what the student learns from, and one teacher "
        f"alone.{seeds}",
        f"Accuracy on {dataset} of a student against its training steps.{seeds} "
        f"{in_words(students, 'after {} steps')}.",
        lambda: lines_figure(students, "training steps", ticks=_ticks(students), references=others),
    )


def _ticks(students: pandas.DataFrame) -> dict[float, str]:
    return {steps: f"{steps:,}" for steps in sorted(set(students["x"]))}


def _line(row: Row, record: Record) -> str:
    if record.method != STUDENT:
        return row.name
    cost = record.cost
    if cost is None or cost.params is None or cost.macs_per_query_image is None:
        return record.net
    return f"{record.net} ({cost.params / 1e6:.2f} M, {cost.macs_per_query_image / 1e6:.0f} M)"
