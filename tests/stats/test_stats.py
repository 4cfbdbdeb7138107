"""Intervals and tests: against scipy, by simulation, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from bench.errors import BenchError
from bench.seeds import numpy_generator
from bench.stats import (
    FLIPS_PER_CHUNK,
    bca_interval,
    holm,
    mean_interval,
    paired_difference,
    paired_differences,
    resample_counts,
)


def draws(name: str, n: int = 60) -> np.ndarray:
    """Skewed fractions, multiples of 1/75 as accuracies are."""
    return np.round(numpy_generator("stats", name).beta(6, 2, n) * 75) / 75


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_t_interval_equals_scipy(level):
    values = draws("t")
    expected = reference.ttest_1samp(values, 0).confidence_interval(level)
    found = mean_interval(values, level)
    assert found == pytest.approx((values.mean(), expected.low, expected.high), abs=1e-12)


def test_t_interval_covers_as_often_as_it_says():
    """2000 samples of 8 normal values: 95 % ± 3 standard errors (0.5 points each)."""
    samples = numpy_generator("coverage").normal(3.0, 2.0, (2000, 8))
    intervals = np.array([mean_interval(sample, 0.95) for sample in samples])
    covered = ((intervals[:, 1] <= 3) & (intervals[:, 2] >= 3)).mean()
    assert 0.935 < covered < 0.965


def test_bca_interval_agrees_with_scipy():
    values = draws("bca")
    expected = reference.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=numpy_generator("scipy")
    ).confidence_interval
    found = bca_interval(values, resample_counts(60, numpy_generator("ours"), 20_000))
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.high, abs=0.03 * width)
    t = mean_interval(values)
    assert found.high - found.mean < t.high - t.mean  # skewed to the left: the upper arm is shorter


def test_bca_interval_of_equal_values_is_their_value():
    counts = resample_counts(5, numpy_generator("flat"))
    assert bca_interval([0.4] * 5, counts) == (0.4, 0.4, 0.4)


def test_same_generator_same_interval_other_generator_another():
    values = draws("generator")
    first, again, other = (resample_counts(60, numpy_generator(name)) for name in (1, 1, 2))
    assert bca_interval(values, first) == bca_interval(values, again)
    assert bca_interval(values, first) != bca_interval(values, other)
    assert bca_interval(values[::-1], first)[1:] == bca_interval(values, first)[1:]


def test_resample_counts_are_multinomial():
    """Every sample has n values; counts have mean 1, variance 1 - 1/n, covariance -1/n."""
    n = 7
    counts = resample_counts(n, numpy_generator("counts"), 40_000)
    assert counts.shape == (40_000, n)
    assert (counts.sum(axis=1) == n).all()
    expected = np.eye(n) - 1 / n
    assert np.cov(counts.T) == pytest.approx(expected, abs=0.03)
    assert counts.mean(axis=0) == pytest.approx(np.ones(n), abs=0.03)


def test_sign_flip_p_equals_full_enumeration():
    """10 tasks have 1024 flips; 40,000 random ones find the exact share."""
    a, b = draws("few a", 10), draws("few b", 10)
    difference = a - b
    flips = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = (np.abs(flips @ difference) >= abs(difference.sum()) - 1e-9).mean()
    found = paired_difference(a, b, 40_000, numpy_generator("flips"))
    assert 0.02 < exact < 1
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 40_000))


def test_sign_flip_p_is_near_scipys():
    a = draws("near", 80)
    b = a - 0.02 + numpy_generator("noise").normal(0, 0.09, 80)
    expected = reference.permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=numpy_generator("scipy flips"),
    ).pvalue
    found = paired_difference(a, b, 9_999, numpy_generator("our flips")).p_value
    assert 0.005 < expected < 0.5
    assert found == pytest.approx(expected, abs=0.015)


def test_no_difference_has_p_one_and_uniform_p_under_the_null():
    a = draws("same")
    assert paired_difference(a, a, 100, numpy_generator("x")).p_value == 1
    generator = numpy_generator("null")
    p = [
        paired_difference(*generator.normal(size=(2, 20)), 199, generator).p_value
        for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert 0.45 < np.mean(p) < 0.55


def test_swapping_turns_the_sign_exactly():
    a, b = draws("left"), draws("right")
    forth = paired_difference(a, b, 999, numpy_generator("flips"))
    back = paired_difference(b, a, 999, numpy_generator("flips"))
    assert (back.mean, back.low, back.high) == (-forth.mean, -forth.high, -forth.low)
    assert back.p_value == forth.p_value


def test_the_order_of_tasks_does_not_matter():
    a, b = draws("left"), draws("right")
    order = numpy_generator("order").permutation(len(a))
    one = paired_difference(a, b, 999, numpy_generator("flips"))
    other = paired_difference(a[order], b[order], 999, numpy_generator("flips"))
    assert other.p_value == one.p_value
    assert (other.mean, other.low) == pytest.approx((one.mean, one.low), abs=1e-12)


def test_the_pairs_beside_a_pair_change_nothing():
    pairs = [(draws(f"a {i}"), draws(f"b {i}") + 0.01 * i) for i in range(5)]
    together = paired_differences(pairs, 2_500, numpy_generator("flips"))
    alone = [paired_difference(a, b, 2_500, numpy_generator("flips")) for a, b in pairs]
    assert together == alone
    assert len({one.p_value for one in together}) > 2
    assert paired_differences([], 9, numpy_generator("flips")) == []


def test_flips_are_counted_over_chunks():
    a, b = draws("left"), draws("right") - 1
    flips = 2 * FLIPS_PER_CHUNK + 7
    assert paired_difference(a, b, flips, numpy_generator("f")).p_value == 1 / (1 + flips)


def test_pairing_is_worth_more_than_two_intervals():
    a = draws("task difficulty", 200)
    found = paired_difference(a + 0.01, a, 99, numpy_generator("f"))
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)


def test_holm_by_hand():
    """m = 4: 0.01·4, 0.02·3, 0.03·2, 0.9·1, then monotone; order is kept."""
    assert holm([0.9, 0.01, 0.03, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


def test_holm_never_lowers_and_keeps_order():
    p = numpy_generator("p").uniform(size=30)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: mean_interval([0.5]), "at least 2"),
        (lambda g: mean_interval([0.5, np.nan]), "finite"),
        (lambda g: mean_interval([0.5, 0.6], 1.0), "level = 1.0"),
        (lambda g: bca_interval([[0.5, 0.6]], resample_counts(2, g)), "shape (1, 2)"),
        (lambda g: bca_interval([0.5, 0.6, 0.7], resample_counts(2, g)), "resample_counts(3, "),
        (lambda g: resample_counts(1, g), "at least 2"),
        (lambda g: paired_difference([1, 2, 3], [1, 2], 9, g), "3 and 2 values"),
        (lambda g: paired_difference([1, 2], [1, 2], 0, g), "n_permutations = 0"),
        (
            lambda g: paired_differences([([1, 2], [2, 1]), ([1, 2, 3], [3, 2, 1])], 9, g),
            "pairs of [2, 3] tasks",
        ),
        (lambda g: holm([0.1, 1.2]), "within [0, 1]"),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(BenchError) as raised:
        call(numpy_generator("bad"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
