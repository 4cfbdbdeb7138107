"""Gradient switch: against the published implementation and traces made by hand."""

from __future__ import annotations

import json

import pytest

from bench.training.curriculum import GradientSwitch


def adversarial_iterations(switch: GradientSwitch, accuracies, first: int = 1) -> list[int]:
    """Run the switch over accuracies of iterations first, first + 1, …"""
    found = []
    for iteration, accuracy in enumerate(accuracies, start=first):
        if switch.take():
            found.append(iteration)
        switch.observe(iteration, accuracy)
    return found


@pytest.mark.golden
def test_switch_equals_the_published(golden):
    switch = GradientSwitch(int(golden["switch/start"]), patience=6)
    found = adversarial_iterations(switch, golden["switch/accuracy_percent"])
    assert found == golden["switch/adversarial_iterations"].tolist()


@pytest.mark.golden
def test_fractions_and_percent_switch_alike(golden):
    switch = GradientSwitch(int(golden["switch/start"]), patience=6)
    found = adversarial_iterations(switch, golden["switch/accuracy_percent"] / 100)
    assert found == golden["switch/adversarial_iterations"].tolist()


def test_constant_accuracy_by_hand():
    """start 2 arms for 3; its accuracy is the best; 4 and 5 do not exceed it → armed for 6; …"""
    assert adversarial_iterations(GradientSwitch(2, patience=2), [0.5] * 12) == [3, 6, 9, 12]


def test_improvement_resets_the_counter_by_hand():
    """Best 0.1 (at 2), 0.3 (at 4); 5, 6 and 7 fail to exceed 0.3 → armed for 8."""
    accuracies = [0.9, 0.1, 0.0, 0.3, 0.3, 0.2, 0.1, 0.0]
    assert adversarial_iterations(GradientSwitch(1, patience=3), accuracies) == [2, 8]


def test_ever_rising_accuracy_arms_only_once():
    assert adversarial_iterations(GradientSwitch(5, patience=1), range(100)) == [6]


def test_nothing_happens_before_the_start():
    assert adversarial_iterations(GradientSwitch(50, patience=1), [0.5] * 50) == []


def test_taking_disarms():
    switch = GradientSwitch(1, patience=6)
    switch.observe(1, 0.5)
    assert switch.take()
    assert not switch.take()


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_resumed_switch_goes_on_alike(cut):
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.1] * 4
    whole = adversarial_iterations(GradientSwitch(2, patience=2), accuracies)
    first, second = GradientSwitch(2, patience=2), GradientSwitch(2, patience=2)
    found = adversarial_iterations(first, accuracies[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += adversarial_iterations(second, accuracies[cut:], first=cut + 1)
    assert found == whole
    assert len(whole) > 2
