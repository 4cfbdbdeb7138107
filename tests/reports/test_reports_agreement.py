"""The table of agreement, from answers written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from report_records import make_record

from bench.results.predictions import Predictions, write_predictions
from bench.results.select import load_records
from bench.results.store import mark_done
from reports.rows.groups import make_groups
from reports.tables.agreement import agreement_rows
from reports.tables.build import build_tables

TRUE = np.tile(np.repeat(np.arange(5), 2), (2, 1))
"""Two tasks of five classes with two queries each."""


def answered(folder, method: str, wrong: list[int], **changes):
    """Write a record whose answers are right but for some of the 20 queries."""
    predicted = TRUE.copy().ravel()
    predicted[wrong] = (predicted[wrong] + 1) % 5
    found = Predictions.empty(2, 10, 5)
    found.put(0, Predictions(predicted.reshape(TRUE.shape), TRUE, np.ones(TRUE.shape)))
    place = make_record(folder, method, found.accuracies, n_test_tasks=2, n_query=2, **changes)
    write_predictions(place / "predictions.parquet", found)
    mark_done(place)
    return place


def test_shares_are_those_counted_by_hand(tmp_path):
    """20 queries; wrong are 0-7 and 6-9: both right 10, only the second 6, only the first 2."""
    answered(tmp_path, "average", [*range(8)])
    answered(tmp_path, "random", [6, 7, 8, 9])
    stored = load_records(tmp_path)
    (table,) = build_tables(stored, ["agreement"])
    rows = {line[0].text: [entry.text for entry in line[2:]] for line in table.sections[0].rows}
    assert [column.header for column in table.columns[2:]] == ["random\nmaml", "average\nmaml"]
    assert rows == {"random": ["80.0", "50.0 / 30.0"], "average": ["50.0 / 10.0", "60.0"]}
    (row,) = agreement_rows(make_groups(stored)[0])
    assert (row["method"], row["other"]) == ("random", "average")
    assert (row["both"], row["only_row"], row["only_other"]) == pytest.approx((0.5, 0.3, 0.1))


def test_rows_with_more_seeds_are_compared_on_those_that_all_have(tmp_path):
    answered(tmp_path, "average", [*range(8)])
    answered(tmp_path, "random", [6, 7, 8, 9])
    answered(tmp_path, "random", [*range(20)], seed=1)
    (row,) = agreement_rows(make_groups(load_records(tmp_path))[0])
    assert (row["both"], row["only_row"], row["only_other"]) == pytest.approx((0.5, 0.3, 0.1))


def test_records_without_answers_are_left_out(tmp_path):
    answered(tmp_path, "average", [1])
    place = answered(tmp_path, "random", [2])
    answered(tmp_path, "purer", [3], task_list_sha256="0" * 64)
    (place / "predictions.parquet").unlink()
    mark_done(place)
    assert build_tables(load_records(tmp_path), ["agreement"]) == []
    (tmp_path / "other").mkdir()
    answered(tmp_path / "other", "average", [1])
    answered(tmp_path / "other", "purer", [1, 2])
    answered(tmp_path / "other", "random", [3], seed=1)
    (table,) = build_tables(load_records(tmp_path / "other"), ["agreement"])
    assert [line[0].text for line in table.sections[0].rows] == ["average", "purer"]
