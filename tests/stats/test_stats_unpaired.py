"""The unpaired difference against scipy's Welch test, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.stats import mean_interval, paired_difference, unpaired_difference


@pytest.mark.parametrize(("n", "m"), [(2, 2), (20, 20), (600, 35)])
def test_equals_scipys_welch_interval(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.5, 0.1, n), rng.normal(0.4, 0.3, m)
    found = unpaired_difference(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(found, [a.mean() - b.mean(), *expected], rtol=1e-9)


def test_swapping_turns_the_sign() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(30), rng.random(40)
    mean, low, high = unpaired_difference(a, b)
    np.testing.assert_allclose(unpaired_difference(b, a), [-mean, -high, -low])


def test_is_wider_than_the_paired_one_where_tasks_share_their_difficulty() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.5, 0.1, 200)
    a, b = difficulty + 0.02 + rng.normal(0, 0.01, 200), difficulty
    paired = paired_difference(a, b, 100, rng)
    wide = unpaired_difference(a, b)
    assert wide.mean == pytest.approx(paired.mean)
    assert wide.high - wide.low > 5 * (paired.high - paired.low)


def test_edges() -> None:
    assert unpaired_difference([0.5, 0.5], [0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)
    one_sided = unpaired_difference([0.1, 0.3, 0.4], [0.2, 0.2])
    interval = mean_interval([0.1, 0.3, 0.4])
    assert one_sided.high - one_sided.low == pytest.approx(interval.high - interval.low)
    with pytest.raises(BenchError, match="at least 2"):
        unpaired_difference([0.1], [0.2, 0.3])
    with pytest.raises(BenchError, match="level"):
        unpaired_difference([0.1, 0.2], [0.2, 0.3], level=1.0)
