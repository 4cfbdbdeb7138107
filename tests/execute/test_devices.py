"""Devices by name, on accelerators of every kind that torch serves; none has to be there."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from bench.errors import BenchError
from bench.execute import devices
from bench.execute.devices import choose_device, devices_of, limits, use_device
from bench.execute.machine import describe_device
from bench.execute.timing import Stopwatch, SystemSampler

CPU = torch.device("cpu")


class Torch:
    """What torch would say with some accelerators of a kind, and what it was asked."""

    def __init__(self, kind: str, count: int, float64: bool):
        self.kind, self.count, self.float64 = kind, count, float64
        self.calls: list[tuple[str, torch.device]] = []
        self.figures = {"max_memory_allocated": 700, "memory_allocated": 300}

    def current_accelerator(self, check_available: bool = False) -> torch.device | None:
        return torch.device(self.kind) if self.count else None

    def device_count(self) -> int:
        return self.count

    def note(self, name: str) -> Callable[[torch.device], int]:
        def call(device: torch.device) -> int:
            self.calls.append((name, device))
            return self.figures.get(name, 0)

        return call


@pytest.fixture
def torch_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Torch]:
    """A function (kind, count, float64) → torch with these accelerators."""

    def make(kind: str, count: int, float64: bool = True) -> Torch:
        one = Torch(kind, count, float64)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", one.current_accelerator)
        monkeypatch.setattr(torch.accelerator, "device_count", one.device_count)
        for name in (
            *("set_device_index", "synchronize", "reset_peak_memory_stats"),
            *("max_memory_allocated", "memory_allocated"),
        ):
            monkeypatch.setattr(torch.accelerator, name, one.note(name))
        monkeypatch.setattr(
            "bench.nets.precision.has_float64", lambda device: device == CPU or one.float64
        )
        return one

    return make


@pytest.mark.parametrize(
    ("kind", "count", "float64", "expected"),
    [
        ("cuda", 2, True, "cuda:0"),
        ("xpu", 1, True, "xpu:0"),
        ("xpu", 1, False, "cpu"),
        ("mps", 1, False, "cpu"),
        ("cuda", 0, True, "cpu"),
    ],
)
@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_takes_what_can_do_everything(torch_with, name, kind, count, float64, expected):
    torch_with(kind, count, float64)
    assert devices_of(name) == [torch.device(expected)]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("cuda", "cpu", ["cpu"]),
        ("cuda", "cuda", ["cuda:0"]),
        ("cuda", "cuda:1", ["cuda:1"]),
        ("cuda", "cuda:2,0", ["cuda:2", "cuda:0"]),
        ("cuda", "cuda:1,1", ["cuda:1"]),
        ("xpu", "xpu", ["xpu:0"]),
        ("xpu", "xpu:0,2", ["xpu:0", "xpu:2"]),
        ("mps", "mps", ["mps:0"]),
    ],
)
def test_names_stand_for_devices_and_the_first_is_made_current(torch_with, kind, name, expected):
    there = torch_with(kind, 3, kind != "mps")
    assert devices_of(name) == [torch.device(one) for one in expected]
    first = torch.device(expected[0])
    assert choose_device(name) == use_device(name) == first
    assert there.calls == ([] if first == CPU else [("set_device_index", first)])


@pytest.mark.parametrize(
    "name", ["gpu", "cpu0", "cpu:0", "mps:1", "cuda:", "cuda:0,", "cuda:x", ""]
)
def test_other_names_are_refused(torch_with, name):
    torch_with("cuda", 3)
    with pytest.raises(BenchError, match=f"unknown device '{name}'; use auto, cpu, xpu, mps, cuda"):
        devices_of(name)


@pytest.mark.parametrize(
    ("kind", "count", "name", "message"),
    [
        ("cuda", 2, "cuda:0,2", "'cuda:2' is not there .* finds cuda:0, cuda:1"),
        ("xpu", 1, "cuda", "'cuda:0' is not there .* finds xpu:0"),
        ("cuda", 0, "mps", "'mps:0' is not there .* finds no accelerator"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(torch_with, kind, count, name, message):
    torch_with(kind, count)
    with pytest.raises(BenchError, match=message + ".*use --device cpu"):
        devices_of(name)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_clocks_wait_for_any_accelerator_at_both_ends(torch_with, monkeypatch, kind):
    there, now, device = torch_with(kind, 1), [10.0], torch.device(kind, 0)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Stopwatch(device)
    with clock.running():
        assert there.calls == [("synchronize", device)]
        now[0] += 3
        with clock.paused():
            now[0] += 1
    assert clock.elapsed.seconds == 3
    assert there.calls == [("synchronize", device)] * 4


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_memory_is_the_accelerators(torch_with, kind):
    there, device = torch_with(kind, 1), torch.device(kind, 0)
    with SystemSampler(device) as sampler:
        assert sampler.peak_memory_bytes == 700
    assert there.calls[0] == ("reset_peak_memory_stats", device)
    assert sampler.rows["gpu_memory_bytes"] == [300.0]
    assert "gpu_percent" not in sampler.rows


def test_without_statistics_memory_is_the_processs(torch_with, monkeypatch):
    torch_with("mps", 1)

    def none(device: torch.device) -> int:
        raise RuntimeError("Allocator for mps is not a DeviceAllocator.")

    for name in ("reset_peak_memory_stats", "max_memory_allocated", "memory_allocated"):
        monkeypatch.setattr(torch.accelerator, name, none)
    with SystemSampler(torch.device("mps", 0)) as sampler:
        assert sampler.peak_memory_bytes >= sampler.rows["memory_bytes"][0] > 2**20
    assert sampler.rows["gpu_memory_bytes"] == [0.0]


def test_a_cpu_is_asked_for_nothing(torch_with):
    there = torch_with("cuda", 1)
    with SystemSampler(CPU) as sampler, Stopwatch(CPU).running():
        assert sampler.peak_memory_bytes > 2**20
    assert there.calls == []
    assert limits(CPU) == []


def test_accelerators_are_described_by_name_or_kind(monkeypatch):
    known = SimpleNamespace(get_device_name=lambda device: f"Example {device.index}")
    for module, expected in ((known, "Example 1"), (SimpleNamespace(), "xpu")):
        monkeypatch.setattr(torch, "xpu", module)
        described = describe_device(torch.device("xpu", 1))
        assert (described.type, described.name) == ("xpu", expected)


def test_what_a_device_cannot_do_is_said_in_a_line_each(torch_with, monkeypatch):
    """On `meta`, which computes everything else, in the place of an accelerator."""
    there = torch_with("mps", 1, float64=False)
    monkeypatch.setattr(torch.linalg, "solve", none_of)
    device = torch.device("meta")
    lines = limits(device)
    assert [line.split(":")[0] for line in lines] == ["float64", "linear systems", "TF32", "graphs"]
    there.float64, there.figures["max_memory_allocated"] = True, 0
    names = [line.split(":")[0] for line in limits(device)]
    assert names == ["linear systems", "TF32", "graphs", "memory statistics"]


def none_of(*_: object) -> None:
    raise NotImplementedError("The operator is not currently implemented for the MPS device")


def test_every_failure_of_an_attempt_counts():
    for error in (RuntimeError, NotImplementedError, TypeError, BenchError):

        def attempt(error: type[Exception] = error) -> None:
            raise error

        assert not devices._works(attempt)
    assert devices._works(lambda: None)
