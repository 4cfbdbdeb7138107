"""Similarity of the teachers' features: linear CKA (centred kernel alignment) per pair.

A statement about the pool, made by the harness and for readers only: no method sees it. The images
are of the validation split, whose classes no teacher was trained on and no test task has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.contract import Pool, Teacher
from bench.data.base import ImageData
from bench.data.images import normalise
from bench.nets.base import resize
from bench.nets.precision import computing_in
from bench.results.files import content_hash, recall, remember, write_parquet

N_IMAGES = 256
"""Images that similarity is measured on; far less work than an epoch of any teacher."""
MIN_IMAGES = 20
"""Fewer images than this say nothing."""
IMAGES_PER_CHUNK = 64


@torch.no_grad()
def teacher_features(teacher: Teacher, images: Tensor) -> Tensor:
    """Return a teacher's features (n, d) of normalised images (n, 3, H, W), on the CPU."""
    parts = [teacher.net.features(part).cpu() for part in images.split(IMAGES_PER_CHUNK)]
    return torch.cat(parts).flatten(1)


def pool_similarity(
    pool: Pool, sets: Sequence[ImageData], device: torch.device, n_images: int = N_IMAGES
) -> Tensor | None:
    """Return the similarity (N, N) of a pool's teachers on validation images, or None.

    The images are spread evenly over the sorted images of each data set's validation split; each
    data set has an equal share. None where there are fewer than two teachers or too few images.

    Args:
        pool: teachers that take images of the largest data set's size.
        sets: the data sets, normalised as the pool takes them.
        device: where the pool is.
        n_images: of all data sets together, at most.
    """
    from bench.nets.similarity import linear_cka

    chosen = [_spread(one, n_images // len(sets)) for one in sets]
    if len(pool) < 2 or sum(map(len, chosen)) < MIN_IMAGES:
        return None
    side = max(one.image_size for one in sets)
    batches = []
    for one, indices in zip(sets, chosen, strict=True):
        if len(indices):
            images = torch.from_numpy(one.splits["val"].images[indices]).to(device)
            batches.append(resize(normalise(images, one.mean, one.std), side))
    return linear_cka(
        [torch.cat([teacher_features(teacher, batch) for batch in batches]) for teacher in pool]
    )


def _spread(data: ImageData, n: int) -> np.ndarray:
    known = len(data.splits["val"].images)
    return np.unique(np.linspace(0, known - 1, min(n, known)).round().astype(int))


def stored_similarity(
    cache: Path, pool: Pool, sets: Sequence[ImageData], device: torch.device
) -> np.ndarray | None:
    """Return a pool's similarity (N, N) from the cache; measure it if it is not there, or damaged.

    None where `pool_similarity` has no answer. Cells of all suites and precisions share it, so it
    is measured in float32 whatever the cell computes in.
    """
    if len(pool) < 2:
        return None
    key = content_hash([pool.sha256, [[one.digest, one.mean, one.std] for one in sets], N_IMAGES])
    path = cache / "similarity" / f"{key[:20]}.json"
    kept = recall(path).get("cka")
    if kept is not None:
        return np.array(kept)
    with computing_in("float32", device):
        found = pool_similarity(pool, sets, device)
    if found is None:
        return None
    remember(path, {"cka": found.tolist()})
    return found.numpy()


def write_similarity(path: Path, matrix: np.ndarray) -> None:
    """Write similarities of teachers, (N, N) symmetric: `a` < `b` (int32), `cka` (float64)."""
    a, b = np.triu_indices(len(matrix), k=1)
    columns = {"a": a.astype(np.int32), "b": b.astype(np.int32), "cka": matrix[a, b]}
    write_parquet(path, columns)
