"""Pools that tests of merges share, and what they compare."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from baselines.merging._channels import (
    group_sizes,
    permute,
)
from baselines.merging.average import Average
from baselines.merging.c2m3 import C2M3
from baselines.merging.dro import Dro
from baselines.merging.fisher import Fisher
from baselines.merging.git_rebasin import GitRebasin
from baselines.merging.otfusion import OtFusion
from baselines.merging.pleas import Pleas
from baselines.merging.regmean import RegMean
from baselines.merging.task_arithmetic import TaskArithmetic
from baselines.merging.ties import Ties
from baselines.merging.zipit import ZipIt
from bench.contract import NetSpec, Pool
from tests.helpers import tiny_context, tiny_net, tiny_pool

QUICK = {"inversion_steps": 2, "images_per_class": 2, "max_steps": 5, "steps": 20}
INVERTING = (Fisher, Pleas, RegMean, ZipIt)
MERGES = (Average, C2M3, GitRebasin, OtFusion, Dro, Ties, TaskArithmetic, *INVERTING)
IDENTITY = {
    ZipIt: {"head": "average"},
    Ties: {"density": 1.0},
    TaskArithmetic: {"scale": None},
}
"""Settings under which equal teachers merge to themselves, where the defaults mean otherwise."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_permutations(net, size: int, g: torch.Generator) -> dict[str, Tensor]:
    sizes = group_sizes(net.state_dict(), net.channel_axes(size))
    return {group: torch.randperm(n, generator=g) for group, n in sizes.items()}


def permuted_copies(architecture: str, n: int, size: int) -> Pool:
    """One network and copies of it with other channel orders; the first is the reference."""
    g = generator(3)
    pool = tiny_pool((architecture,) * n, 5, size, g, accuracies=[0.9] + [0.5] * (n - 1))
    state = {k: v.clone() for k, v in pool[0].net.state_dict().items()}
    for teacher in pool[1:]:
        order = drawn_permutations(teacher.net, size, g)
        teacher.net.load_state_dict(permute(state, teacher.net.channel_axes(size), order))
    return pool


def context_of(method, pool: Pool, size: int = 16, **config):
    quick = {name: QUICK[name] for name in QUICK.keys() & method.Config.model_fields.keys()}
    net = NetSpec(pool[0].spec.architecture, 5, size)
    return tiny_context(method, pool, net=net, config={**quick, **config})


def with_start(pool: Pool, seed: int = 8) -> Pool:
    start = tiny_net(generator(seed), pool[0].spec.architecture, 5, pool[0].spec.image_size)
    return Pool(pool.teachers, pool.sha256, {pool[0].spec: start.state_dict()})


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance)
