"""Meta-testing 600 tasks: each learner beside the loop it replaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import registry
from bench.contract import NetSpec, TaskShape
from bench.data.base import ImageData, make_split
from bench.data.tasks import frozen_tasks
from bench.execute.evaluate import EmbeddingTable, evaluate
from bench.execute.machine import prepare_process
from bench.learners.base import LearnerSettings
from bench.nets.base import initialise
from bench.nets.build import build_net
from bench.seeds import numpy_generator, torch_generator

CPU = torch.device("cpu")
N_TASKS = 600


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Noise of the size of the test split of CIFAR-FS: 20 classes of 600 images at 32×32."""
    prepare_process()
    images = numpy_generator("perf").integers(0, 256, (12_000, 32, 32, 3), dtype=np.uint8)
    split = make_split("test", [f"class{i:02d}" for i in range(20)], [600] * 20, images)
    return ImageData("noise", 32, (0.5,) * 3, (0.25,) * 3, {"test": split}, "0" * 64, "ours")


def _learner(name: str, bn: str, seed: int = 0):
    net = build_net(NetSpec("conv4", 5, 32))
    initialise(net, torch_generator("perf", seed))
    net = net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return registry.load("learner", name)(net, LearnerSettings(bn=bn))


@pytest.mark.parametrize("name", ["protonet", "anil", "maml"])
@pytest.mark.benchmark(group="600 tasks, 5-way 1-shot, Conv4 at 32x32")
def test_gradient_learners(benchmark, data: ImageData, name: str) -> None:
    split = data.splits["test"]
    tasks = frozen_tasks("noise", "test", split.counts, TaskShape(5, 1, 15), N_TASKS)
    learner = _learner(name, "transductive")
    benchmark.pedantic(evaluate, (learner, data, split, tasks, CPU), rounds=1, warmup_rounds=0)


@pytest.mark.parametrize("reuse", [True, False], ids=["one table", "a table a shot"])
@pytest.mark.benchmark(group="600 tasks at 1 shot and 600 at 5, centroids of one Conv4")
def test_embeddings_are_made_once(benchmark, data: ImageData, reuse: bool) -> None:
    split = data.splits["test"]
    learner = _learner("centroids", "running")
    lists = [
        frozen_tasks("noise", "test", split.counts, TaskShape(5, k, 15), N_TASKS) for k in (1, 5)
    ]

    def both() -> None:
        shared = EmbeddingTable(len(split.images), CPU)
        for tasks in lists:
            table = shared if reuse else EmbeddingTable(len(split.images), CPU)
            evaluate(learner, data, split, tasks, CPU, table)

    benchmark.pedantic(both, rounds=3, warmup_rounds=1)
