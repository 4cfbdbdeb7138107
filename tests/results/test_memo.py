"""Kept numbers: the same as computed ones, bound to what they came from, harmless when lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.results.memo import Memo


def test_numbers_are_computed_once_and_kept(tmp_path):
    path, values = tmp_path / "memo.json", np.array([0.1, 1 / 3])
    first = Memo(path)
    assert first.numbers("x", [values], lambda: values, "seed") == values.tolist()
    first.save()
    again = Memo(path)
    kept = again.numbers("x", [values.copy()], lambda: pytest.fail("computed again"), "seed")
    assert kept == values.tolist()


def test_of_many_only_the_unknown_are_computed(tmp_path):
    path, items = tmp_path / "memo.json", [[np.array([value])] for value in (1.0, 2.0, 3.0)]
    first = Memo(path)
    first.numbers("x", items[1], lambda: [20.0])
    first.save()
    second, asked = Memo(path), []

    def compute(places: list[int]) -> list[list[float]]:
        asked.append(places)
        return [[10 * items[place][0][0]] for place in places]

    expected = [[10.0], [20.0], [30.0]]
    assert second.many("x", items, compute) == expected
    assert asked == [[0, 2]]
    second.save()
    kept = Memo(path).many("x", items, lambda places: pytest.fail("computed again"))
    assert kept == expected


@pytest.mark.parametrize("change", ["name", "values", "words"])
def test_anything_else_is_computed(tmp_path, change):
    path, values = tmp_path / "memo.json", np.array([0.1, 0.2])
    first = Memo(path)
    first.numbers("x", [values], lambda: [1.0], 1)
    first.save()
    name = "y" if change == "name" else "x"
    other = values + 1 if change == "values" else values
    words = 2 if change == "words" else 1
    assert Memo(path).numbers(name, [other], lambda: [2.0], words) == [2.0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 0, "numbers": {"a": [1]}}'])
def test_a_spoilt_file_costs_only_time(tmp_path, text):
    path = tmp_path / "memo.json"
    path.write_text(text)
    assert Memo(path).numbers("x", [np.zeros(2)], lambda: [3.0]) == [3.0]


def test_what_is_no_longer_used_is_dropped(tmp_path):
    path = tmp_path / "memo.json"
    first = Memo(path)
    for name in ("x", "y"):
        first.numbers(name, [np.zeros(2)], lambda: [1.0])
    first.save()
    second = Memo(path)
    second.numbers("x", [np.zeros(2)], lambda: [1.0])
    second.save()
    assert len(json.loads(path.read_text())["numbers"]) == 1
