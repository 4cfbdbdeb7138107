"""Intervals and tests over per-task accuracies; each docstring states the question it answers.

All take one value per task, (n,); scipy is imported where it is used. What was measured of their
coverage is in docs/statistics.md.
"""

from bench.stats.classes import open_interval
from bench.stats.equivalence import Equivalence, equivalence
from bench.stats.intervals import bca_interval, mean_interval
from bench.stats.multiple import holm
from bench.stats.paired import (
    FLIPS_PER_CHUNK,
    PairedDifference,
    improvement,
    minimal_detectable_difference,
    paired_difference,
    paired_differences,
)
from bench.stats.resamples import N_RESAMPLES, resample_counts
from bench.stats.seeds import Spread, hierarchical_interval, seed_spread
from bench.stats.unpaired import unpaired_difference
from bench.stats.values import Interval, Values

__all__ = [
    "FLIPS_PER_CHUNK",
    "N_RESAMPLES",
    "Equivalence",
    "Interval",
    "PairedDifference",
    "Spread",
    "Values",
    "bca_interval",
    "equivalence",
    "hierarchical_interval",
    "holm",
    "improvement",
    "mean_interval",
    "minimal_detectable_difference",
    "open_interval",
    "paired_difference",
    "paired_differences",
    "resample_counts",
    "seed_spread",
    "unpaired_difference",
]
