"""Bootstrap samples of n values as counts; one draw serves every set of n values."""

from __future__ import annotations

import numpy as np

from bench.errors import BenchError

N_RESAMPLES = 2000
"""Bootstrap samples behind a 95 % interval: its ends then lie at the 50th from either side."""


def resample_counts(
    n: int, generator: np.random.Generator, n_resamples: int = N_RESAMPLES
) -> np.ndarray:
    """Return how often each of n values is in each bootstrap sample, (n_resamples, n) float64.

    Drawing is what a bootstrap takes its time for; the same counts may serve many sets of n
    values. Each interval is distributed as with draws of its own; only the Monte-Carlo errors of
    several go together.

    Args:
        n: values of a set, at least 2.
        generator: draws them, each of n with the same chance.
        n_resamples: bootstrap samples.

    Raises:
        BenchError: n below 2, or no sample asked for.

    Source: Efron (1979); the counts of a sample are multinomial(n, 1/n).
    """
    if n < 2 or n_resamples < 1:
        raise BenchError(f"{n_resamples} resamples of {n} values; give at least 1 of at least 2")
    drawn = generator.integers(0, n, size=(n_resamples, n))
    drawn += np.arange(0, n_resamples * n, n)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n)
    return counts.reshape(n_resamples, n).astype(np.float64)


def resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each bootstrap sample, (n_resamples,).

    Raises:
        BenchError: counts of another number of values.
    """
    if counts.ndim != 2 or counts.shape[1] != len(values):
        raise BenchError(
            f"counts of shape {counts.shape} for {len(values)} values; draw them with "
            f"resample_counts({len(values)}, generator)"
        )
    return np.einsum("ij,j->i", counts, values) / len(values)
