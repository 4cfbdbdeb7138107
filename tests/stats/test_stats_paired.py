"""Improvement, minimal detectable difference and equivalence: scipy, symmetry, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from bench.errors import BenchError
from bench.seeds import numpy_generator
from bench.stats import (
    equivalence,
    improvement,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
)


def pair(name: str, shift: float = 0.02, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Two learners on n tasks; the first is better by about `shift`."""
    generator = numpy_generator("paired stats", name)
    difficulty = generator.normal(0.5, 0.09, n)
    a, b = difficulty + shift + generator.normal(0, 0.05, (2, n)) - [[0], [shift]]
    return a, b


def test_improvement_counts_ties_half():
    found = improvement([3, 2, 1, 5], [1, 2, 2, 0])
    assert found.mean == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert improvement([1, 2], [1, 2]) == (0.5, 0.5, 0.5)


def test_improvement_swaps_to_its_complement_and_ignores_order_and_size():
    a, b = pair("swap")
    forth, back = improvement(a, b), improvement(b, a)
    assert back == pytest.approx((1 - forth.mean, 1 - forth.high, 1 - forth.low))
    order = numpy_generator("order").permutation(len(a))
    assert improvement(a[order], b[order]) == pytest.approx(forth)
    assert improvement(b + 7 * (a - b), b) == pytest.approx(forth)


def test_the_detectable_difference_is_found_with_its_power():
    """The power of the t test at that difference, by the noncentral t of scipy, is 80 %."""
    a, b = pair("power")
    found = minimal_detectable_difference(a, b)
    n, std = len(a), (a - b).std(ddof=1)
    noncentral = reference.nct(n - 1, found / (std / np.sqrt(n)))
    critical = reference.t(n - 1).ppf(0.975)
    assert noncentral.sf(critical) + noncentral.cdf(-critical) == pytest.approx(0.8, abs=0.005)


def test_more_tasks_detect_less_and_swapping_changes_nothing():
    a, b = pair("more", n=400)
    assert minimal_detectable_difference(a, b) == minimal_detectable_difference(b, a)
    assert minimal_detectable_difference(a, b) < minimal_detectable_difference(a[:100], b[:100])
    assert minimal_detectable_difference(a, a + 0.1) == pytest.approx(0, abs=1e-12)


def test_one_sided_p_values_are_scipys():
    a, b = pair("tost")
    found = equivalence(a, b, 0.03)
    low = reference.ttest_1samp(a - b, -0.03, alternative="greater").pvalue
    high = reference.ttest_1samp(a - b, 0.03, alternative="less").pvalue
    better = reference.ttest_1samp(a - b, 0, alternative="greater").pvalue
    assert (found.p_no_worse, found.p_no_better, found.p_better) == pytest.approx(
        (low, high, better)
    )
    assert found.p_value == max(found.p_no_worse, found.p_no_better)


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    a, b = pair("interval", 0.0)
    low, high = mean_interval(a - b, 0.9)[1:]
    for margin in np.linspace(0.001, 0.05, 40):
        inside = -margin < low and high < margin
        assert (equivalence(a, b, margin).verdict() == "equivalent") == inside


@pytest.mark.parametrize(
    ("shift", "margin", "expected"),
    [
        (0.10, 0.02, "better"),
        (-0.10, 0.02, "worse"),
        (0.0, 0.06, "equivalent"),
        (0.0, 0.0001, "undecided"),
        (0.01, 0.0125, "no worse"),
    ],
)
def test_verdicts(shift, margin, expected):
    noise = numpy_generator("verdicts").normal(0, 0.09, 200)
    noise -= noise.mean()
    assert equivalence(noise + shift, np.zeros(200), margin).verdict() == expected


def test_swapping_turns_equivalence_around():
    a, b = pair("around")
    forth, back = equivalence(a, b, 0.03), equivalence(b, a, 0.03)
    assert back.mean == -forth.mean
    assert back.p_no_worse == pytest.approx(forth.p_no_better)
    assert back.p_value == pytest.approx(forth.p_value)
    assert back.p_better == pytest.approx(1 - forth.p_better)


def test_no_noise_decides_at_once():
    ones = np.ones(5)
    assert equivalence(ones, ones, 0.01).verdict() == "equivalent"
    assert equivalence(ones, ones - 0.5, 0.01).verdict() == "better"
    assert equivalence(ones, ones + 0.5, 0.01).verdict() == "worse"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: improvement([1, 2, 3], [1, 2]), "3 and 2 values"),
        (lambda: minimal_detectable_difference([1, 2], [1, 3], power=1.0), "power = 1.0"),
        (lambda: minimal_detectable_difference([1, 2], [1, 3], alpha=0), "alpha = 0"),
        (lambda: equivalence([1, 2], [1, 3], 0), "margin = 0"),
        (lambda: equivalence([1, 2], [1, 3], float("nan")), "margin = nan"),
        (
            lambda: paired_difference([1, 2], [1, 2, 3], 9, numpy_generator("x")),
            "2 and 3 values",
        ),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(BenchError) as raised:
        call()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
