"""Choosing one of several equal ways: fixed by default on a CPU, measured once where asked."""

from __future__ import annotations

import json
import time

import pytest
import torch

from bench.execute.strategies import FILE, VARIABLE, Strategies

CPU = torch.device("cpu")


class Trials:
    """Ways that note their runs; `slow` takes 5 ms, `broken` fails."""

    def __init__(self):
        self.runs: list[str] = []
        self.ways = {"slow": self._slow, "quick": self._quick, "broken": self._broken}

    def _slow(self) -> None:
        self.runs.append("slow")
        time.sleep(0.005)

    def _quick(self) -> None:
        self.runs.append("quick")

    def _broken(self) -> None:
        self.runs.append("broken")
        raise RuntimeError("not on this device")


@pytest.fixture
def trials(monkeypatch) -> Trials:
    monkeypatch.delenv(VARIABLE, raising=False)
    return Trials()


def test_a_cpu_takes_the_first_and_measures_nothing(tmp_path, trials):
    strategies = Strategies(tmp_path, CPU)
    assert strategies("work", trials.ways) == "slow"
    assert trials.runs == []
    assert strategies.chosen == {"work": "slow"}
    assert not (tmp_path / FILE).exists()


def test_a_measurement_is_made_once_and_kept(tmp_path, trials):
    assert Strategies(tmp_path, CPU, "measure")("work", trials.ways) == "quick"
    made = len(trials.runs)
    assert made > 4
    assert Strategies(tmp_path, CPU, "measure")("work", trials.ways) == "quick"
    assert len(trials.runs) == made
    (times,) = json.loads((tmp_path / FILE).read_text()).values()
    assert times["broken"] is None
    assert times["slow"] >= 0.005 > times["quick"]
    Strategies(tmp_path, CPU, "measure")("other work", trials.ways)
    assert len(trials.runs) == 2 * made


def test_other_devices_are_measured_by_default(tmp_path, trials):
    assert Strategies(tmp_path, torch.device("meta"))("work", trials.ways) == "quick"


@pytest.mark.parametrize(("setting", "expected"), [("quick", "quick"), ("unheard of", "slow")])
def test_a_name_is_taken_where_it_is_offered(tmp_path, trials, monkeypatch, setting, expected):
    monkeypatch.setenv(VARIABLE, setting)
    assert Strategies(tmp_path, CPU)("work", trials.ways) == expected
    assert trials.runs == []
