"""Draws of task lists: distinct images, and numbers of queries per class."""

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


def distinct(sizes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return distinct integers below each row's size, every ordered choice equally likely.

    The first m steps of a Fisher-Yates shuffle of range(size), without the range: only values
    that a swap has moved are remembered.

    Args:
        sizes: (R,) integers, at least m each.
        draws: (R, m) uniform in [0, 1).

    Returns:
        (R, m) int32.
    """
    places = np.empty(draws.shape, dtype=np.int32)
    moved = np.empty(draws.shape, dtype=np.int32)
    chosen = np.empty(draws.shape, dtype=np.int32)
    for step in range(draws.shape[1]):
        here = np.full(len(draws), step, dtype=np.int32)
        there = (step + np.floor(draws[:, step] * (sizes - step))).astype(np.int32)
        chosen[:, step] = _value_at(there, places[:, :step], moved[:, :step])
        moved[:, step] = _value_at(here, places[:, :step], moved[:, :step])
        places[:, step] = there
    return chosen


def _value_at(place: np.ndarray, places: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return what lies at a place (R,) after the swaps that put `moved` (R, s) at `places`."""
    value = place.copy()
    for step in range(places.shape[1]):
        np.copyto(value, moved[:, step], where=places[:, step] == place)
    return value
