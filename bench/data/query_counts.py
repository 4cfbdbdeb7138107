"""Draws of unequal numbers of queries per class, for the hazard `query_counts`."""

from __future__ import annotations

import numpy as np

from bench.contract import TaskShape

CONCENTRATION = 2.0
"""Of the Dirichlet distribution of class shares: the paper's α."""


def query_counts(shape: TaskShape, generator: np.random.Generator, n_tasks: int) -> np.ndarray:
    """Return numbers of queries per class (n_tasks, n_way), n_way * n_query in each task.

    Class shares are drawn from a Dirichlet distribution of concentration `CONCENTRATION`; what
    rounding down leaves goes to the classes with the largest remainders. Source: Veilleux et al.,
    NeurIPS 2021, arXiv 2204.11181, section 3.
    """
    total = shape.n_way * shape.n_query
    exact = total * generator.dirichlet(np.full(shape.n_way, CONCENTRATION), n_tasks)
    floors = np.floor(exact).astype(np.int32)
    places = np.argsort(np.argsort(floors - exact, axis=1, kind="stable"), axis=1)
    return floors + (places < total - floors.sum(1, keepdims=True))
