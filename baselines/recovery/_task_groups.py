"""Groups of teachers by the similarity of their features on pseudo images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bench.contract import Teacher
from bench.learners.batching import channels_last
from bench.nets.base import resize
from bench.nets.norm import running_norm
from bench.nets.similarity import linear_cka

Grouping = Literal["unlike", "alike", "random"]
Groups = list[list[int]]
"""Of each group the numbers of its teachers, ascending."""

RESTARTS = 30
"""Runs of k-means, of which the best is kept. Source: the released code."""
IMAGES_PER_CHUNK = 64


@torch.no_grad()
def feature_similarity(teachers: Sequence[Teacher], images: Tensor) -> np.ndarray:
    """Return the similarity (N, N) of teachers in [0, 1]: linear CKA of their features.

    Args:
        teachers: N networks of any kind.
        images: normalised pseudo images (n, 3, H, W), n at least 4, shown to each of them.
    """
    features = []
    for teacher in teachers:
        x = resize(images, teacher.spec.image_size)
        parts = [
            teacher.net.features(channels_last(part), running_norm)
            for part in x.split(IMAGES_PER_CHUNK)
        ]
        features.append(_on_host(torch.cat(parts)))
    return linear_cka(features).clamp(0, 1).numpy()


def _on_host(x: Tensor) -> Tensor:
    """Return features on the CPU, where groups are found: once in a fit."""
    return x.cpu()


def similar_groups(
    similarity: np.ndarray, grouping: Grouping, n_groups: int, generator: torch.Generator
) -> Groups:
    """Return groups of teachers that are `alike`, or `unlike` one another, or `random` ones.

    Args:
        similarity: (N, N) in [0, 1]; `random` uses its size only.
        grouping: `unlike` clusters by dissimilarity, so that teachers of one group differ.
        n_groups: how many; fewer may come of it.
        generator: CPU generator of random groups and of where k-means starts.
    """
    n = len(similarity)
    if grouping == "random":
        order = torch.randperm(n, generator=generator).tolist()
        return sorted(sorted(order[start::n_groups]) for start in range(min(n, n_groups)))
    affinity = similarity if grouping == "alike" else 1 - similarity
    return spectral_groups(affinity, n_groups, generator)


def spectral_groups(affinity: np.ndarray, n_groups: int, generator: torch.Generator) -> Groups:
    """Return the clusters of a weighted graph; a heavy edge holds its ends together.

    Normalised spectral clustering: the eigenvectors of the n_groups smallest eigenvalues of the
    random walk's Laplacian, then k-means on their rows.

    Args:
        affinity: weights (N, N), symmetric, at least 0; the diagonal plays no part.
        n_groups: how many clusters.
        generator: CPU generator of where k-means starts.

    Source: Shi and Malik, IEEE TPAMI 22(8), 2000; von Luxburg, "A Tutorial on Spectral Clustering",
    2007, section 4.
    """
    from scipy.linalg import eigh  # takes long to load

    weights = np.array(affinity, dtype=np.float64)
    np.fill_diagonal(weights, 0)
    roots = np.sqrt(np.maximum(weights.sum(1), np.finfo(np.float64).tiny))
    laplacian = np.eye(len(weights)) - weights / roots[:, None] / roots
    _, vectors = eigh(laplacian, subset_by_index=(0, n_groups - 1))
    rows = vectors * (np.sqrt((roots**2).mean()) / roots[:, None])
    labels = _k_means(rows, n_groups, generator)
    groups = [np.flatnonzero(labels == label).tolist() for label in range(n_groups)]
    return sorted(group for group in groups if group)


def _k_means(rows: np.ndarray, k: int, generator: torch.Generator) -> np.ndarray:
    """Return the labels (n,) of the tightest clusters of rows (n, d) that k-means finds."""
    from scipy.cluster.vq import ClusterError, kmeans2

    k = min(k, len(np.unique(rows.round(9), axis=0)))
    best, labels = np.inf, np.zeros(len(rows), dtype=int)
    for seed in torch.randint(2**31, (RESTARTS,), generator=generator).tolist():
        try:
            centres, found = kmeans2(
                rows, k, minit="++", missing="raise", rng=np.random.default_rng(seed)
            )
        except ClusterError:  # a cluster became empty
            continue
        spread = float(np.square(rows - centres[found]).sum())
        if spread < best - 1e-12:
            best, labels = spread, found
    return labels
