"""Hand-made records for the tests of reports: 20 tasks each, accuracies that are simple to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.results.files import content_hash, write_json
from bench.results.frame import record_row
from bench.results.record import (
    Cost,
    Device,
    Environment,
    FitSummary,
    PoolSummary,
    Record,
    Timing,
    summarise,
)
from bench.results.select import load_records
from bench.results.store import mark_done, write_tasks
from bench.seeds import numpy_generator
from reports.tables.build import build_tables
from reports.text.render import csv_text, latex, markdown, terminal_text

N_TASKS = 20
KNOWLEDGE = {
    "random": "parameters",
    "average": "parameters",
    "best_teacher": "parameters",
    "zipit": "parameters",
    "purer": "inversion",
    "distill_ensemble": "inversion",
    "ensemble_centroids": "features",
    "teacher_centroids": "features",
    "oracle_protonet": "real_data",
}
INDUCTIVE = {"purer", "distill_ensemble", "ensemble_centroids", "teacher_centroids"}
"""The others are ranked apart from these."""

NO_POOL = ("random", "oracle_protonet")
LEARNERS = {
    "distill_ensemble": "centroids",
    "ensemble_centroids": "centroids",
    "teacher_centroids": "centroids",
    "oracle_protonet": "protonet",
}
PROTOCOL = {
    "name": "cvpr23",
    "pool": "disjoint",
    "selection": "val",
    "task_list": "frozen",
    "teacher_checkpoint": "best",
    "bn": "transductive",
    "inner_lr": 0.01,
    "inner_steps_train": 1,
    "inner_steps_test": 1,
}
"""Written out, so that stored texts do not change with the package's protocols."""
BUDGET = {
    "name": "short",
    "teacher_epochs": 60,
    "meta_iterations": 400,
    "oracle_iterations": 1000,
    "validate_every": 50,
    "n_val_tasks": 100,
}
HASHED = (
    "scenario",
    "datasets",
    "dataset_digests",
    "architectures",
    "method",
    "preset",
    "method_config",
    "learner",
    "calibration",
    "calibration_config",
    "k_shot",
    "n_test_tasks",
    "protocol",
    "budget",
    "seed",
)


def accuracies(mean: float, stream: str, n: int = N_TASKS, noise: float = 0.02) -> np.ndarray:
    """Return n accuracies near `mean`: difficulties that all methods share, and own noise."""
    shared = numpy_generator("difficulty").uniform(-0.08, 0.08, n)
    own = numpy_generator("noise", stream).uniform(-noise, noise, n)
    return np.clip(mean + shared - shared.mean() + own - own.mean(), 0, 1)


def make_record(
    folder: Path, method: str, values: np.ndarray | None, again: bool = False, **changes: Any
) -> Path:
    """Write the record of one cell below a folder and return the cell's folder.

    Args:
        folder: the suite's folder.
        method: a key of `KNOWLEDGE`.
        values: (n,) accuracies, or None for a cell without result.
        again: whether its teachers were trained a second time.
        changes: fields of `Record` that differ from the default.
    """
    fields = _fields(method) | changes
    hashed = {key: fields[key] for key in HASHED}
    hashed |= {key: fields[key] for key in ("test_datasets",) if key in fields}
    hashed |= {"net": fields["net"]} if fields["net"] != "conv4" else {}
    fields["cell_hash"] = content_hash(hashed)[:16]
    if values is not None:
        fields |= {
            "accuracy": summarise(values),
            "task_list_sha256": fields["task_list_sha256"] or _task_list(fields),
            "timing": fields.get("timing", _timing(method)),
            "cost": fields.get("cost", Cost(params=29_541, macs_per_query_image=5_308_416)),
            "pool": fields.get("pool")
            or (None if method in NO_POOL else pool_of(fields["seed"], again)),
            "fit": FitSummary(sha256=content_hash(["fit", fields["cell_hash"]]), reused=False),
        }
    place = folder / fields["cell_hash"]
    place.mkdir(parents=True)
    if values is not None:
        write_tasks(place / "tasks.parquet", values)
    write_json(place / "record.json", Record.model_validate(fields).model_dump(mode="json"))
    mark_done(place)
    return place


def _fields(method: str) -> dict[str, Any]:
    return {
        "status": "done",
        "suite": "cifar_fs_ss",
        "scenario": "SS",
        "datasets": ["cifar_fs"],
        "dataset_digests": {"cifar_fs": "d" * 64},
        "architectures": ["conv4"],
        "net": "conv4",
        "method": method,
        "knowledge": KNOWLEDGE[method],
        "inference": "inductive" if method in INDUCTIVE else "transductive",
        "preset": "released",
        "method_config": {},
        "learner": LEARNERS.get(method, "maml"),
        "calibration": "none",
        "calibration_config": {},
        "n_way": 5,
        "k_shot": 1,
        "n_query": 15,
        "n_test_tasks": N_TASKS,
        "task_list_sha256": None,
        "protocol": PROTOCOL,
        "budget": BUDGET,
        "selection": "last",
        "seed": 0,
        "device": Device(type="cpu", name="Example CPU", threads=2),
        "environment": Environment(
            python="3.11",
            platform="Linux",
            packages={},
            git_commit="0123456789abcdef0123456789abcdef01234567",
            git_dirty=False,
        ),
        "command": "bench run cifar_fs_ss",
        "started": "2024-05-01T10:00:00+00:00",
        "ended": "2024-05-01T10:05:00+00:00",
    }


def _task_list(fields: dict[str, Any]) -> str:
    return content_hash([fields[key] for key in ("datasets", "n_way", "k_shot", "n_test_tasks")])


def _timing(method: str) -> Timing:
    inverts = method == "purer"
    return Timing(
        fit_s=120.5 if inverts else 0.01,
        train_tasks_per_s=13.2 if inverts else None,
        pseudo_images_per_s=1042.0 if inverts else None,
        test_s=2.0,
        test_tasks_per_s=10.0,
        peak_memory_bytes=812_000_000,
    )


def pool_of(seed: int, again: bool = False) -> PoolSummary:
    """Return the pool of a seed, or that of the same settings trained again."""
    teachers = [
        {
            "name": f"cifar_fs/{i:02d}",
            "dataset": "cifar_fs",
            "architecture": "conv4",
            "image_size": 32,
            "classes": [f"class_{i:02d}{letter}" for letter in "abcde"],
            "accuracy": 0.8 + 0.01 * i + 0.001 * seed,
        }
        for i in range(13)
    ]
    return PoolSummary(
        sha256=content_hash(["pool", seed, *["again"] * again]),
        n=13,
        mean_accuracy=float(np.mean([t["accuracy"] for t in teachers])),
        architectures={"conv4": 13},
        teachers=teachers,
    )


def standard_suite(folder: Path) -> list[Path]:
    """Write eight methods' records in two settings: one best, one tied, one skipped, one failed."""
    places = []
    for k_shot, gain in ((1, 0.0), (5, 0.15)):
        means = {"random": 0.30, "average": 0.31, "purer": 0.33, "teacher_centroids": 0.40}
        means |= {"ensemble_centroids": 0.475, "oracle_protonet": 0.58}
        for method, mean in means.items():
            values = accuracies(mean + gain, f"{method} {k_shot}")
            places.append(make_record(folder, method, values, k_shot=k_shot))
        tuned = accuracies(0.473 + gain, f"tuned {k_shot}", noise=0.05)
        places.append(make_record(folder, "purer", tuned, k_shot=k_shot, preset="tuned"))
    skipped = {"status": "skipped", "reason": "needs teachers of one | architecture"}
    failed = {"status": "failed", "reason": "loss_inner is not finite at step 3"}
    places.append(make_record(folder, "average", None, learner="protonet", **skipped))
    places.append(make_record(folder, "average", None, learner="protonet", k_shot=5, **failed))
    return places


def seeded_suite(folder: Path) -> list[Path]:
    """Write two methods with three seeds each, and one whose third seed failed."""
    places = []
    for seed in range(3):
        for method, mean in (("average", 0.31), ("purer", 0.33 + 0.01 * seed)):
            values = accuracies(mean, f"{method} {seed}")
            places.append(make_record(folder, method, values, seed=seed))
        if seed < 2:
            values = accuracies(0.3, f"random {seed}")
            places.append(make_record(folder, "random", values, seed=seed))
    failed = {"status": "failed", "reason": "out of memory"}
    places.append(make_record(folder, "random", None, seed=2, **failed))
    return places


def outputs(folder: Path) -> dict[str, str]:
    """Return every text that the standard and the seeded suite give, by golden file name."""
    standard_suite(folder / "standard")
    seeded_suite(folder / "seeded")
    texts = {}
    for suite in ("standard", "seeded"):
        stored = load_records(folder / suite)
        tables = build_tables(stored)
        texts |= {
            f"{suite}.md": markdown(tables),
            f"{suite}.tex": latex(tables),
            f"{suite}.txt": terminal_text(tables, 100),
            f"{suite}.csv": csv_text([record_row(one) for one in stored]),
        }
    return texts
