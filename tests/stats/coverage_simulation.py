"""How often each interval covers the truth: simulations whose truth is known.

`python tests/coverage_simulation.py` prints the table of docs/statistics.md; its 2,000 simulations
a row take some minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.seeds import numpy_generator
from bench.stats import (
    bca_interval,
    hierarchical_interval,
    mean_interval,
    open_interval,
    paired_difference,
    resample_counts,
)

N_TASKS = 600
COUNTS = resample_counts(N_TASKS, numpy_generator("resamples", N_TASKS))
"""One draw for all simulations, as a report has one for all its records."""
Trial = Callable[[np.random.Generator], tuple[float, float, float]]


class Case(NamedTuple):
    """An interval in a world whose truth is known; `trial` returns truth, low, high."""

    interval: str
    world: str
    trial: Trial
    least: float
    """the lowest coverage that is let pass"""
    most: float = 1.0


def t_trial(generator: np.random.Generator) -> tuple[float, float, float]:
    """Skewed accuracies, multiples of 1/75, whose mean is 0.75."""
    found = mean_interval(_accuracies(generator))
    return 0.75, found.low, found.high


def bca_trial(generator: np.random.Generator) -> tuple[float, float, float]:
    """The same accuracies."""
    found = bca_interval(_accuracies(generator), COUNTS)
    return 0.75, found.low, found.high


def paired_trial(generator: np.random.Generator) -> tuple[float, float, float]:
    """Two learners who share the tasks' difficulty; the true difference is 0.02."""
    difficulty = generator.normal(0, 0.09, N_TASKS)
    a = 0.52 + difficulty + generator.normal(0, 0.05, N_TASKS)
    b = 0.50 + difficulty + generator.laplace(0, 0.04, N_TASKS)
    found = paired_difference(a, b, 1, generator)
    return 0.02, found.low, found.high


def _accuracies(generator: np.random.Generator) -> np.ndarray:
    return generator.binomial(75, generator.beta(6, 2, N_TASKS)) / 75


def seeds_trial(n_seeds: int, seed_std: float) -> Trial:
    """Repetitions (n_seeds, 600) around 0.5: effects of seeds, of tasks, and noise."""

    def trial(generator: np.random.Generator) -> tuple[float, float, float]:
        values = (
            0.5
            + generator.normal(0, seed_std, (n_seeds, 1))
            + generator.normal(0, 0.09, (1, N_TASKS))
            + generator.normal(0, 0.05, (n_seeds, N_TASKS))
        )
        found = hierarchical_interval(values)
        return 0.5, found.low, found.high

    return trial


def classes_trial(n_classes: int, class_std: float, pair_std: float = 0.0) -> Trial:
    """Five-way tasks around 0.5 of classes drawn anew: their effects, those of pairs, noise."""

    def trial(generator: np.random.Generator) -> tuple[float, float, float]:
        draws = generator.random((N_TASKS, n_classes))
        classes = np.argsort(draws, axis=1)[:, :5]
        effects = generator.normal(0, class_std, n_classes)
        pairs = np.triu(generator.normal(0, pair_std, (n_classes, n_classes)), 1)
        pairs += pairs.T
        of_pairs = pairs[classes[:, :, None], classes[:, None, :]].sum((1, 2)) / 2
        noise = generator.normal(0, 0.06, N_TASKS)
        values = 0.5 + effects[classes].sum(1) + of_pairs + noise
        found = open_interval(values, classes, COUNTS, numpy_generator("open"))
        return 0.5, found.low, found.high

    return trial


CASES = (
    Case("t", "600 skewed accuracies", t_trial, 0.935, 0.965),
    Case("BCa", "600 skewed accuracies", bca_trial, 0.935, 0.965),
    Case("paired t", "600 tasks, shared difficulty", paired_trial, 0.935, 0.965),
    Case("hierarchical", "3 seeds, spread 1 point", seeds_trial(3, 0.01), 0.88),
    Case("hierarchical", "5 seeds, spread 1 point", seeds_trial(5, 0.01), 0.88),
    Case("hierarchical", "3 seeds, spread 0.2 points", seeds_trial(3, 0.002), 0.88),
    Case("hierarchical", "3 seeds without spread", seeds_trial(3, 0.0), 0.88),
    Case("open", "20 classes, effects of 2 points", classes_trial(20, 0.02), 0.88),
    Case("open", "50 classes, effects of 2 points", classes_trial(50, 0.02), 0.88),
    Case("open", "20 classes, and 1 point a pair", classes_trial(20, 0.02, 0.01), 0.88),
    Case("open", "20 classes without effects", classes_trial(20, 0.0), 0.88),
)


def coverage(case: Case, n_simulations: int) -> float:
    """Return the share of simulations whose interval holds the truth."""
    generator = numpy_generator("coverage", case.interval, case.world)
    hits = 0
    for _ in range(n_simulations):
        truth, low, high = case.trial(generator)
        hits += low <= truth <= high
    return hits / n_simulations


def table(n_simulations: int) -> str:
    """Return the Markdown table of all cases."""
    lines = ["| interval | world | covers the truth |", "| :--- | :--- | ---: |"]
    lines += [
        f"| {case.interval} | {case.world} | {100 * coverage(case, n_simulations):.1f} % |"
        for case in CASES
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(2000))
