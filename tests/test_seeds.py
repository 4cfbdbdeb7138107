"""Derived seeds: independent, stable, and silent about global state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import seeds
from bench.errors import BenchError
from bench.registry import entry, names


def test_seeds_depend_on_every_part_and_their_order() -> None:
    found = {
        seeds.derive_seed(*parts)
        for parts in [("a", "b"), ("b", "a"), ("ab",), ("a", "b", 0), ("a",)]
    }
    assert len(found) == 5
    assert all(0 <= seed < 2**63 for seed in found)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seeds.derive_seed("task classes", 0) == 5339676777225204927


def test_generators_leave_global_state_alone() -> None:
    before, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    a = torch.rand(3, generator=seeds.torch_generator("x", 1))
    b = torch.rand(3, generator=seeds.torch_generator("x", 1))
    c = torch.rand(3, generator=seeds.torch_generator("x", 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert seeds.numpy_generator("x").random() == seeds.numpy_generator("x").random()
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)


def test_global_seeding_reaches_all_three() -> None:
    import random

    def draw() -> tuple[float, float, float]:
        seeds.seed_global_state("m", 0)
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    assert draw() == draw()


def test_unknown_names_show_near_matches() -> None:
    with pytest.raises(BenchError, match="unknown method 'avrage'; did you mean average"):
        entry("method", "avrage")
    assert "purer" in names("method")
