"""Small fits of the methods that recover images through a generator."""

from __future__ import annotations

from dataclasses import replace

import torch

from baselines.recovery.bidf_mkd import BidfMkd
from baselines.recovery.free import Free
from baselines.recovery.tgr import Tgr
from bench.contract import Pool
from tests.helpers import tiny_context, tiny_pool

GENERATOR = {
    "images_per_class": 3,
    "generator_width": 4,
    "latent_size": 8,
    "teachers_per_visit": 2,
    "warmup": 1,
    "patience": 1,
}
QUICK = {
    "bidf_mkd": {
        "images_per_class": 2,
        "generation_steps": 3,
        "directions": 2,
        "generator_width": 4,
        "latent_size": 8,
        "distillation_steps": 1,
        "patience": 1,
        "boundary_start": 2,
    },
    "free": GENERATOR,
    "tgr": {**GENERATOR, "similarity_images": 16},
}
METHODS = [BidfMkd, Free, Tgr]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def conv_pool(n: int = 3, classes: int = 5) -> Pool:
    return tiny_pool(("conv4",) * n, classes, 16, seeded())


def context_of(method, pool: Pool | None = None, **changes):
    settings = {**QUICK[method.name], **changes.pop("config", {})}
    budget = {"meta_iterations": 4, "validate_every": 2, **changes.pop("budget", {})}
    return tiny_context(method, pool or conv_pool(), config=settings, budget=budget, **changes)


class Sealed:
    """A network that answers when it is called; whatever else is asked of it raises."""

    def __init__(self, net):
        object.__setattr__(self, "net", net)

    def __call__(self, images):
        return object.__getattribute__(self, "net")(images)

    def __getattribute__(self, name):
        raise AssertionError(f"{name} of a black box was asked for")


def sealed(pool: Pool) -> Pool:
    return Pool([replace(t, net=Sealed(t.net)) for t in pool], pool.sha256)
