"""The measured time of one forward pass: the current speed of this machine."""

from __future__ import annotations

import functools

import torch

from bench.contract import NetSpec
from bench.execute.timing import Elapsed
from bench.learners.base import LearnerSettings
from bench.learners.protonet import ProtoNet
from bench.nets.base import placed
from bench.nets.build import build_net

SAMPLES = 5
SECONDS = 0.04
"""Of a sample: many time slices of a busy machine, so that what others take of it counts."""
MOST_QUERIES = 75
LEAST = 2
"""Support images, and least queries: a single value per channel has no batch statistics."""


def pass_seconds(spec: NetSpec, device: torch.device) -> float:
    """Return the seconds per image of predicting tasks with ProtoNet, the median of some samples.

    The result is not stored: a machine that is busy now may be idle at the next plan.
    """
    return _measured(spec, device).seconds


def slowdown(spec: NetSpec, device: torch.device) -> float:
    """Return how much longer one thread's pass takes now than on an idle machine, at least 1."""
    one = _measured(spec, device)
    return max(1.0, one.seconds / one.cpu)


@functools.cache
def _measured(spec: NetSpec, device: torch.device) -> Elapsed:
    """Return the seconds of a pass per image."""
    net = placed(build_net(spec), device).eval()
    learner = ProtoNet(net.requires_grad_(False), LearnerSettings())
    label = torch.zeros(1, LEAST, dtype=torch.long, device=device)
    size = (3, spec.image_size, spec.image_size)

    def sample(n_query: int, seconds: float) -> Elapsed:
        support, query = (torch.zeros(1, n, *size, device=device) for n in (LEAST, n_query))
        start, n_passes, took = Elapsed.now(), 0, Elapsed()
        while n_passes == 0 or took.seconds < seconds:
            learner.predict(support, label, query).sum().item()
            n_passes, took = n_passes + 1, Elapsed.now().minus(start)
        return Elapsed(*(one / n_passes / (LEAST + n_query) for one in took))

    def quickest(n_query: int) -> float:
        return (LEAST + n_query) * min(*sample(n_query, 0.0), *sample(n_query, 0.0))

    sample(LEAST, 0.0)  # plans kernels
    n_query = LEAST  # a pass has a fixed cost, so they are as many on a busy machine
    while n_query < MOST_QUERIES and quickest(n_query) < SECONDS / 2:
        n_query = min(2 * n_query + 1, MOST_QUERIES)
    return sorted(sample(n_query, SECONDS) for _ in range(SAMPLES))[SAMPLES // 2]
