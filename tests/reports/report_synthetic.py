"""Many synthetic records, as a large benchmark leaves them: 600 tasks each, classes known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from report_records import make_record

from bench.results.store import write_tasks
from bench.seeds import numpy_generator

METHODS = {
    ("random", "maml"): 0.27,
    ("random", "protonet"): 0.33,
    ("average", "maml"): 0.29,
    ("average", "protonet"): 0.35,
    ("purer", "maml"): 0.38,
    ("purer", "protonet"): 0.41,
    ("purer", "anil"): 0.375,
    ("teacher_centroids", "centroids"): 0.40,
    ("ensemble_centroids", "centroids"): 0.48,
    ("oracle_protonet", "protonet"): 0.55,
}
DATASETS = ("glyphs", "cifar_fs", "mini_imagenet", "cub", "vgg_flower")
N_TASKS, N_CLASSES = 600, 20


def synthetic_runs(folder: Path, n_seeds: int = 5) -> int:
    """Write 2 scenarios × 5 data sets × 2 shots × 10 methods × seeds; return how many records."""
    n = 0
    combinations = itertools.product(("SS", "SH"), DATASETS, (1, 5), METHODS, range(n_seeds))
    for scenario, dataset, k_shot, (method, learner), seed in combinations:
        difficulty, classes = _tasks(dataset, k_shot)
        own = numpy_generator("own", scenario, dataset, k_shot, method, learner, seed)
        level = METHODS[method, learner] + 0.03 * k_shot + own.normal(0, 0.008)
        values = np.clip(level + difficulty + own.normal(0, 0.05, N_TASKS), 0, 1)
        place = make_record(
            folder / f"{dataset}_{scenario.lower()}",
            method,
            np.round(values * 75) / 75,
            suite=f"{dataset}_{scenario.lower()}",
            scenario=scenario,
            datasets=[dataset],
            dataset_digests={dataset: dataset.ljust(64, "0")},
            learner=learner,
            k_shot=k_shot,
            n_test_tasks=N_TASKS,
            seed=seed,
        )
        write_tasks(place / "tasks.parquet", np.round(values * 75) / 75, classes)
        n += 1
    return n


def _tasks(dataset: str, k_shot: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what all methods share: each task's difficulty (600,) and classes (600, 5)."""
    shared = numpy_generator("tasks", dataset, k_shot)
    classes = np.argsort(shared.random((N_TASKS, N_CLASSES)), axis=1)[:, :5]
    effects = shared.normal(0, 0.02, N_CLASSES)
    return effects[classes].sum(1) + shared.normal(0, 0.07, N_TASKS), classes
