"""One forward pass of a network, measured: how fast this machine is at this moment."""

from __future__ import annotations

import functools
import statistics
import time

import torch

from bench.contract import NetSpec
from bench.learners.base import LearnerSettings
from bench.learners.protonet import ProtoNet
from bench.nets.build import build_net

SECONDS = 0.5
FEWEST = 5
MOST_QUERIES = 75


@functools.cache
def pass_seconds(spec: NetSpec, device: torch.device) -> float:
    """Return the seconds per image of predicting tasks with ProtoNet, the median of some.

    Nothing is kept beyond this process: a machine that is busy now may be idle at the next plan.
    """
    net = build_net(spec).to(device, memory_format=torch.channels_last).eval()
    learner = ProtoNet(net.requires_grad_(False), LearnerSettings())
    label = torch.zeros(1, 1, dtype=torch.long, device=device)

    def measured(n_query: int) -> float:
        size = (3, spec.image_size, spec.image_size)
        support, query = (torch.zeros(1, n, *size, device=device) for n in (1, n_query))
        start = time.perf_counter()
        learner.predict(support, label, query).sum().item()
        return (time.perf_counter() - start) / (1 + n_query)

    measured(1)  # plans kernels
    n_query = max(1, min(MOST_QUERIES, int(SECONDS / FEWEST / measured(1))))
    start, found = time.perf_counter(), [measured(n_query)]
    while len(found) < FEWEST or time.perf_counter() - start < SECONDS:
        found.append(measured(n_query))
    return statistics.median(found)
