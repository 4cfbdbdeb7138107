"""What checkpoints cost: the time of one, as a share of the two minutes between two."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from bench.checkpoints import INTERVAL, MOST_OF_THE_TIME
from bench.contract import TaskShape
from bench.execute.fits import FitRun
from bench.execute.fitting import fit_folder
from bench.execute.machine import prepare_process
from bench.execute.progress import Progress
from purer.method import Purer
from tests.helpers import tiny_context
from tests.perf.meta_iteration import drawn_pool

CPU = torch.device("cpu")


@pytest.mark.benchmark(group="checkpoint of PURER, 13 Conv4 teachers at 32x32, 5 shots")
def test_a_checkpoint_takes_little_of_the_time_between_two(benchmark, tmp_path: Path) -> None:
    """State building, digest, writing and syncing included; one is written after each iteration."""
    prepare_process()
    run, spent = FitRun(fit_folder(tmp_path, "key"), CPU, Progress()), []
    pool = drawn_pool(13)
    asked = 0.0

    def due() -> bool:
        nonlocal asked
        asked = time.perf_counter()
        return True

    def save(step: int, state: dict[str, object]) -> None:
        run.save(step, state)
        spent.append(time.perf_counter() - asked)

    context = tiny_context(
        Purer(),
        pool,
        shape=TaskShape(5, 5, 15),
        net=pool[0].spec,
        config={"curriculum": False, "gallery_images_per_class": 0},
        budget={"meta_iterations": 4, "validate_every": 4},
        save=save,
    )
    context.due = due
    benchmark.pedantic(Purer().fit, (context,), rounds=1)
    share = max(spent) / INTERVAL
    benchmark.extra_info |= {"seconds": round(max(spent), 3), "share": round(share, 5)}
    print(f"\n{benchmark.extra_info}")
    assert share <= MOST_OF_THE_TIME
