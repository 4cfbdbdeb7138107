"""Counters of energy: added up over their turns, and None where the machine offers none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.execute.devices import (
    Counter,
    EnergyMeter,
    energy_meter,
    gpu_counters,
    processor_counters,
)
from bench.execute.timing import SystemSampler


def readings(*values: float, span: float | None = None) -> Counter:
    left = iter(values)
    return Counter(lambda: next(left), span)


def domain(root: Path, number: str, name: str, energy: int, span: int = 1000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder / "energy_uj"


def test_differences_are_added_up_over_the_end_of_a_counter():
    meter = EnergyMeter([readings(5, 9, 2, 3, span=10), readings(100, 101, 101, 104)])
    assert [meter.joules() for _ in range(3)] == [5, 8, 12]
    anew = EnergyMeter([readings(50, 60, 4)])  # a driver that was loaded again counts from 0
    assert [anew.joules(), anew.joules()] == [10, 14]


def test_what_cannot_be_read_is_not_known():
    def broken() -> float:
        raise RuntimeError("the driver is gone")

    assert EnergyMeter([]).joules() is None
    assert EnergyMeter([Counter(broken)]).joules() is None
    half = EnergyMeter([readings(1, 2), readings(1)])
    assert half.joules() is None
    assert half.joules() is None


def test_the_packages_of_all_sockets_count_and_no_part_of_them(tmp_path):
    first = domain(tmp_path, "0", "package-0", 7_000_000, 10_000_000)
    domain(tmp_path, "0:0", "core", 4_000_000)
    domain(tmp_path, "1", "package-1", 0)
    domain(tmp_path, "2", "psys", 9_000_000)
    meter = EnergyMeter(processor_counters(tmp_path))
    first.write_text("9500000\n")
    assert meter.joules() == 2.5
    first.write_text("500000\n")  # came round at 10 J
    assert meter.joules() == pytest.approx(3.5)


def test_a_processor_without_counters_has_none(tmp_path):
    assert processor_counters(tmp_path) == []
    domain(tmp_path, "0", "package-0", 1).write_text("none\n")
    assert processor_counters(tmp_path) == []


def test_a_gpu_is_asked_by_its_own_name(monkeypatch):
    asked, energy = [], iter([1000, 2000, 5500])
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: asked.append(name) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(energy),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    properties = SimpleNamespace(uuid="0a1b")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    meter = EnergyMeter(gpu_counters(torch.device("cuda", 1)))
    assert meter.joules() == 3.5
    assert asked == ["GPU-0a1b"]


def test_a_gpu_that_does_not_count_has_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_counters(torch.device("cuda")) == []
    assert energy_meter(torch.device("mps")).joules() is None


def test_a_cell_is_told_what_its_device_counted(monkeypatch):
    counters = [readings(3, 4, 5, 6, 7, 8)]
    monkeypatch.setattr("bench.execute.devices.processor_counters", lambda: counters)
    with SystemSampler(torch.device("cpu")) as sampler:
        pass
    assert sampler.energy_j == 2  # one for the first sample, one at the end
    monkeypatch.setattr("bench.execute.devices.processor_counters", list)
    with SystemSampler(torch.device("cpu")) as sampler:
        pass
    assert sampler.energy_j is None
