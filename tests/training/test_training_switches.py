"""The switches beside the gradient switch: never, and at random times."""

from __future__ import annotations

import pytest
import torch

from bench.seeds import torch_generator
from bench.training.curriculum import NoSwitch, RandomSwitch


def adversarial(switch, total: int, first: int = 1) -> list[int]:
    """Run a switch through the meta-iterations and return the adversarial ones."""
    found = []
    for iteration in range(first, total + 1):
        if switch.take():
            found.append(iteration)
        switch.observe(iteration, 0.2)
    return found


def generator(seed: int = 0) -> torch.Generator:
    return torch_generator("switch", seed)


def test_no_switch_is_never_adversarial():
    switch = NoSwitch()
    assert adversarial(switch, 50) == []
    switch.load_state_dict(switch.state_dict())
    assert not switch.armed


@pytest.mark.parametrize(("start", "total", "count"), [(1, 30, 7), (4, 30, 26), (29, 30, 1)])
def test_as_many_as_asked_for_and_after_the_start(start, total, count):
    found = adversarial(RandomSwitch(start, total, count, generator()), total)
    assert len(found) == count
    assert all(start < iteration <= total for iteration in found)


def test_more_than_fit_are_all_that_fit():
    assert adversarial(RandomSwitch(5, 8, 100, generator()), 8) == [6, 7, 8]
    assert adversarial(RandomSwitch(8, 8, 3, generator()), 8) == []


def test_the_generator_decides_when():
    first, same, other = (
        adversarial(RandomSwitch(1, 200, 20, generator(seed)), 200) for seed in (0, 0, 1)
    )
    assert first == same != other


@pytest.mark.parametrize("stop", range(1, 20))
def test_resumed_at_any_iteration_it_goes_on_alike(stop):
    whole = adversarial(RandomSwitch(2, 20, 8, generator()), 20)
    switch = RandomSwitch(2, 20, 8, generator())
    before = adversarial(switch, stop)
    resumed = RandomSwitch(2, 20, 8, generator())
    resumed.load_state_dict(switch.state_dict())
    assert before + adversarial(resumed, 20, first=stop + 1) == whole
