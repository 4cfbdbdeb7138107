"""What the harness logs of a fit's speed is what a benchmark of the same work measures.

The benchmark runs where the harness validates: off the fit's clock, in turns with its
iterations, so that what else the machine does hits both.
"""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from bench.contract import TaskShape
from bench.execute.fits import FitRun, obtain_fit
from bench.execute.fitting import fit_folder
from bench.execute.machine import prepare_process
from bench.execute.progress import Progress
from purer.method import Purer
from tests.helpers import tiny_context
from tests.perf.meta_iteration import MetaIterations, drawn_pool

CPU = torch.device("cpu")
TURNS, ITERATIONS = 8, 5
TASKS = 4


@pytest.mark.benchmark(group="throughput, logged against measured")
def test_logged_throughput(benchmark, tmp_path) -> None:
    prepare_process()
    pool = drawn_pool(13)
    both = MetaIterations(pool, tmp_path, 1)
    shape = TaskShape(5, 1, 15)
    seconds: list[float] = []

    def turn(learner: object, after: object) -> float:
        tasks = [both.draw()[1] for _ in range(ITERATIONS)]
        start = time.perf_counter()
        for one in tasks:
            both.ours(one)
        seconds.append(time.perf_counter() - start)
        return 0.5

    def fit():
        folder = fit_folder(tmp_path, "key")
        run = FitRun(folder, CPU, Progress())
        context = tiny_context(
            Purer(),
            pool,
            shape=shape,
            learner="maml",
            net=pool[0].spec,
            config={"curriculum": False, "gallery_images_per_class": 0},
            budget={"meta_iterations": TURNS * ITERATIONS, "validate_every": ITERATIONS},
            validate=run.validation(turn),
            save=run.save,
        )
        return obtain_fit(run, Purer(), dataclasses.replace(context, log=run.log))

    made = benchmark.pedantic(fit, rounds=1)
    measured = ITERATIONS * (len(seconds) - 1) / sum(seconds[1:])  # the first one warms up
    logged = made.steps_per_s
    benchmark.extra_info |= {
        "measured_iterations_per_s": round(measured, 3),
        "logged_iterations_per_s": round(logged, 3),
        "ratio": round(logged / measured, 3),
    }
    print(f"\n{benchmark.extra_info}")
    assert made.pace["steps"] == TURNS * ITERATIONS - 1
    assert made.rate("train_tasks") == pytest.approx(TASKS * logged)
    assert made.rate("pseudo_images") == pytest.approx(13 * 5 * 16 * logged)
    assert logged == pytest.approx(measured, rel=0.05)
