"""The table of confidence, against numbers worked out by hand and by counting pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from report_records import make_record

from bench.results.predictions import Predictions, write_predictions
from bench.results.select import load_records
from bench.results.store import mark_done
from reports.tables.build import build_tables
from reports.tables.confidence import confidence

TRUE = np.tile(np.repeat(np.arange(5), 2), (2, 1))
"""Two tasks of five classes with two queries each."""


def answers(wrong: list[int], margin: np.ndarray) -> Predictions:
    predicted = TRUE.copy().ravel()
    predicted[wrong] = (predicted[wrong] + 1) % 5
    return Predictions(predicted.reshape(TRUE.shape), TRUE, margin.reshape(TRUE.shape))


def test_bounds_are_those_of_softmax():
    """A margin of log 4 of five classes: 4 / (4 + 4) at least, 4 / (4 + 1) at most."""
    found = confidence(answers([0, 1, 2, 3], np.full(20, math.log(4))), 5)
    assert (found.accuracy, found.least, found.most) == pytest.approx((0.8, 0.5, 0.8))
    assert found.auroc == 0.5
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 3
    ordered = np.sort(logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    top = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1).mean()
    found = confidence(answers([], margin), 5)
    assert found.least <= top <= found.most
    assert found.auroc is None


def test_ranking_is_that_of_all_pairs():
    generator = np.random.default_rng(1)
    margin = generator.integers(0, 6, 20).astype(np.float16)
    wrong = [1, 4, 7, 11, 13, 19]
    right = [n for n in range(20) if n not in wrong]
    pairs = [(margin[a] > margin[b]) + 0.5 * (margin[a] == margin[b]) for a in right for b in wrong]
    assert confidence(answers(wrong, margin), 5).auroc == pytest.approx(np.mean(pairs))
    sure = np.arange(20, 0, -1).astype(np.float16)
    found = confidence(answers([*range(10, 16)], sure), 5)
    assert (found.surer, found.accuracy) == (1.0, 0.7)


def test_a_row_that_is_too_sure_is_marked(tmp_path):
    for method, size in (("average", 20.0), ("random", 0.0), ("purer", 1.0)):
        found = answers([*range(8)], np.full(20, size, "f2"))
        place = make_record(tmp_path, method, found.accuracies, n_test_tasks=2, n_query=2)
        if method != "purer":
            write_predictions(place / "predictions.parquet", found)
            mark_done(place)
    more = {"n_test_tasks": 2, "n_query": 2, "seed": 1}  # a seed that the others lack
    make_record(tmp_path, "average", found.accuracies, **more)
    (table,) = build_tables(load_records(tmp_path), ["confidence"])
    assert table.caption.startswith("Of the rows whose records hold predictions. Seed 0, which all")
    rows = {line[0].text: [one.text for one in line[2:]] for line in table.sections[0].rows}
    assert rows == {
        "average": ["60.0", "100.0 !", "100.0", "20.0", "0.50"],
        "random": ["60.0", "20.0", "50.0", "20.0", "0.50"],
    }
