"""A meta-iteration of PURER against a loop with the cost structure of the published code.

Both run interleaved in one process, so that what else the machine does hits both; the figure is the
ratio of medians. `extra_info` of the benchmark holds it.
"""

from __future__ import annotations

import pytest

from bench.execute.machine import prepare_process
from tests.perf.meta_iteration import MetaIterations, drawn_pool

ROUNDS = 9


@pytest.mark.parametrize("k_shot", [1, 5])
@pytest.mark.benchmark(group="meta-iteration, 13 Conv4 teachers at 32x32, 4 tasks")
def test_meta_iteration(benchmark, tmp_path, k_shot: int) -> None:
    prepare_process()
    both = MetaIterations(drawn_pool(13), tmp_path, k_shot)
    benchmark.extra_info |= both.compare(ROUNDS)
    tasks = both.draw()[1]
    benchmark.pedantic(both.ours, (tasks,), rounds=3, warmup_rounds=0)
    print(f"\n{k_shot} shot: {benchmark.extra_info}")


@pytest.mark.parametrize("backend", ["plain", "fused", "stacked"])
@pytest.mark.benchmark(group="pixel step, 13 Conv4 teachers x 80 images at 32x32")
def test_backends(benchmark, tmp_path, backend: str) -> None:
    prepare_process()
    both = MetaIterations(drawn_pool(13), tmp_path, 1, backend)
    benchmark.pedantic(both.pixels.inversion_gradient, rounds=5, warmup_rounds=1)
