"""Answers to queries: kept exactly, and the accuracies that follow are those of before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.results.files import read_parquet, write_parquet
from bench.results.predictions import (
    Predictions,
    read_predictions,
    together,
    write_predictions,
)
from bench.seeds import numpy_generator


def some(n: int = 6, n_query: int = 3, n_way: int = 5, stream: str = "a") -> Predictions:
    rng = numpy_generator("predictions", stream)
    true = np.tile(np.repeat(np.arange(n_way), n_query), (n, 1))
    found = Predictions.empty(n, n_way * n_query, n_way)
    found.put(0, Predictions(rng.integers(0, n_way, true.shape), true, rng.random(true.shape)))
    return found


def test_what_is_written_is_read_again_in_the_smallest_types(tmp_path):
    found = some()
    write_predictions(tmp_path / "p.parquet", found)
    again = read_predictions(tmp_path / "p.parquet", 6)
    for a, b in zip(vars(found).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert [str(v.dtype) for v in vars(again).values()] == ["int8", "int8", "float16"]
    assert Predictions.empty(1, 129, 129).predicted.dtype == np.int16


def test_a_cell_of_600_tasks_takes_at_most_90_kb(tmp_path):
    found = some(600, 15)
    write_predictions(tmp_path / "p.parquet", found)
    assert 45_000 < (tmp_path / "p.parquet").stat().st_size < 130_000  # random answers: the worst


@given(st.integers(1, 200), st.data())
def test_accuracies_are_bit_for_bit_the_mean_that_torch_takes(n_queries, data):
    hits = np.array(data.draw(st.lists(st.booleans(), min_size=n_queries, max_size=n_queries)))
    found = Predictions(hits[None].astype(np.int8), np.ones((1, n_queries), np.int8), hits[None])
    assert found.accuracies[0] == torch.from_numpy(hits).double().mean().item()


def test_several_lists_are_one_after_another(tmp_path):
    a, b = some(2), some(3, stream="b")
    both = together([a, b])
    assert len(both) == 5
    np.testing.assert_array_equal(both[2:5].predicted, b.predicted)
    np.testing.assert_array_equal(both.accuracies, [*a.accuracies, *b.accuracies])


def test_a_table_of_another_number_of_tasks_is_refused(tmp_path):
    write_predictions(tmp_path / "p.parquet", some(6))
    with pytest.raises(BenchError, match="holds 90 queries, not as many for each of 7 tasks"):
        read_predictions(tmp_path / "p.parquet", 7)


@pytest.mark.parametrize("kind", ["int8", "int32", "float16", "float64", "bool"])
def test_columns_of_every_kind_are_read_as_written(tmp_path, kind):
    values = numpy_generator("columns", kind).integers(0, 2, 1000).astype(kind)
    write_parquet(tmp_path / "x.parquet", {"value": values, "name": [str(v) for v in values]})
    columns = read_parquet(tmp_path / "x.parquet", ("value",))
    np.testing.assert_array_equal(columns["value"], values)
    assert columns["value"].dtype == values.dtype
    assert columns["name"][0] == str(values[0])
