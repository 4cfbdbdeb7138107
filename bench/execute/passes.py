"""The measured time of one forward pass: the current speed of this machine."""

from __future__ import annotations

import functools
import statistics
import time

import torch

from bench.contract import NetSpec
from bench.learners.base import LearnerSettings
from bench.learners.protonet import ProtoNet
from bench.nets.base import placed
from bench.nets.build import build_net

SAMPLES = 5
SECONDS = 0.2
"""Of a sample: many time slices of a busy machine, so that what others take of it counts."""
MOST_QUERIES = 75


@functools.cache
def pass_seconds(spec: NetSpec, device: torch.device) -> float:
    """Return the seconds per image of predicting tasks with ProtoNet, the median of some samples.

    Nothing is kept beyond this process: a machine that is busy now may be idle at the next plan.
    """
    net = placed(build_net(spec), device).eval()
    learner = ProtoNet(net.requires_grad_(False), LearnerSettings())
    label = torch.zeros(1, 1, dtype=torch.long, device=device)
    size = (3, spec.image_size, spec.image_size)

    def sample(n_query: int, seconds: float) -> float:
        support, query = (torch.zeros(1, n, *size, device=device) for n in (1, n_query))
        start, n_passes = time.perf_counter(), 0
        while n_passes == 0 or time.perf_counter() - start < seconds:
            learner.predict(support, label, query).sum().item()
            n_passes += 1
        return (time.perf_counter() - start) / n_passes / (1 + n_query)

    sample(1, 0.0)  # plans kernels
    n_query = max(1, min(MOST_QUERIES, int(SECONDS / sample(1, 0.0))))
    return statistics.median(sample(n_query, SECONDS) for _ in range(SAMPLES))
