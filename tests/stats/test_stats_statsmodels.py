"""The same numbers as statsmodels: Holm, the two one-sided tests, intervals and power."""

from __future__ import annotations

import numpy as np
import pytest

from bench.seeds import numpy_generator
from bench.stats import (
    equivalence,
    holm,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    unpaired_difference,
)

pytest.importorskip("statsmodels", reason="pip install statsmodels")


def accuracies(name: str, mean: float = 0.5, n: int = 80) -> np.ndarray:
    """Accuracies as of one learner, (n,)."""
    return np.round(numpy_generator("statsmodels", name).normal(mean, 0.1, n) * 75) / 75


def described(values: np.ndarray):
    """The values as statsmodels describes a sample."""
    from statsmodels.stats.weightstats import DescrStatsW

    return DescrStatsW(values)


@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_holm(n):
    from statsmodels.stats.multitest import multipletests

    generator = numpy_generator("holm", n)
    p = np.round(generator.beta(0.4, 2, n), 2)  # with ties
    rejected, adjusted, *_ = multipletests(p, alpha=0.05, method="holm")
    assert holm(p) == pytest.approx(adjusted, abs=1e-15)
    assert ((holm(p) < 0.05) == rejected).all()


@pytest.mark.parametrize(("shift", "margin"), [(0.0, 0.03), (0.01, 0.01), (-0.02, 0.05)])
def test_equivalence_is_two_one_sided_tests(shift, margin):
    from statsmodels.stats.weightstats import ttost_paired

    a, b = accuracies("a", 0.5 + shift), accuracies("b")
    p_value, (_, p_low, _), (_, p_high, _) = ttost_paired(a, b, -margin, margin)
    found = equivalence(a, b, margin)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert found.p_no_worse == pytest.approx(p_low, rel=1e-9)
    assert found.p_no_better == pytest.approx(p_high, rel=1e-9)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_t_interval(level):
    values = accuracies("t")
    low, high = described(values).tconfint_mean(alpha=1 - level)
    assert mean_interval(values, level) == pytest.approx((values.mean(), low, high), abs=1e-12)


def test_paired_interval_and_permutation_p():
    """The permutation's p is that of the t test within its Monte-Carlo error: n is large."""
    a, b = accuracies("a", 0.525), accuracies("b")
    found = paired_difference(a, b, 40_000, numpy_generator("flips"))
    paired = described(a - b)
    low, high = paired.tconfint_mean()
    _, p_value, _ = paired.ttest_mean(0)
    assert (found.mean, found.low, found.high) == pytest.approx((paired.mean, low, high))
    assert 0.01 < p_value < 0.5
    assert found.p_value == pytest.approx(p_value, abs=0.015)


def test_unpaired_interval():
    from statsmodels.stats.weightstats import CompareMeans

    a, b = accuracies("a", 0.55), 0.5 + 2 * (accuracies("b", n=30) - 0.5)
    low, high = CompareMeans(described(a), described(b)).tconfint_diff(usevar="unequal")
    found = unpaired_difference(a, b)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_detectable_difference_has_the_power_asked_for(power):
    """Ours is Cohen's formula with two t quantiles; statsmodels integrates the noncentral t."""
    from statsmodels.stats.power import TTestPower

    a, b = accuracies("a"), accuracies("b")
    effect = minimal_detectable_difference(a, b, power=power) / (a - b).std(ddof=1)
    expected = TTestPower().power(effect, nobs=len(a), alpha=0.05, alternative="two-sided")
    assert expected == pytest.approx(power, abs=0.005)
