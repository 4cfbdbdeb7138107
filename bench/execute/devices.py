"""Devices: choice by name, synchronisation, memory, description, limits and energy.

One path serves CUDA, ROCm (which torch calls `cuda`), Intel's XPU and a Mac's MPS: all of them are
`torch.accelerator`. CUDA graphs alone are asked for by name (`bench/nets/fast/graphs.py`).

The energy that a device used is known by the counter that it keeps itself, where it has one: an
NVIDIA GPU's is read through NVML, a processor's from Linux' powercap (RAPL), whose files usually
only root may read. Both count all that ran on the device, not this process alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BenchError

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
UNREADABLE = (OSError, ValueError)
NAMES = "auto, cpu, xpu, mps, cuda or cuda:N[,N…]"
_NAME = re.compile(r"(cpu|mps|(?:xpu|cuda)(?::\d+(?:,\d+)*)?)")


def devices_of(name: str | None) -> list[torch.device]:
    """Return the devices that a name stands for, in the given order; at least one.

    Args:
        name: `cpu`, `mps`, `xpu` or `cuda`, the latter two with numbers after a colon if wanted;
            `auto` or None, the first accelerator if it can compute in float64, else the CPU.

    Raises:
        BenchError: the name is no device, or a device is not there.
    """
    import torch

    if name is None or name == "auto":
        return [_automatic()]
    if _NAME.fullmatch(name) is None:
        raise BenchError(f"unknown device '{name}'; use {NAMES}")
    kind, _, numbers = name.partition(":")
    if kind == "cpu":
        return [torch.device("cpu")]
    there = accelerators()
    wanted = [torch.device(kind, int(number)) for number in (numbers or "0").split(",")]
    if missing := [str(device) for device in wanted if device not in there]:
        found = ", ".join(map(str, there)) or "no accelerator"
        raise BenchError(
            f"device '{missing[0]}' is not there (torch {torch.__version__} finds {found}); "
            "use --device cpu"
        )
    return list(dict.fromkeys(wanted))


def accelerators() -> list[torch.device]:
    """Return the accelerators that torch finds, all of one kind."""
    import torch

    if (kind := torch.accelerator.current_accelerator(check_available=True)) is None:
        return []
    return [torch.device(kind.type, n) for n in range(torch.accelerator.device_count())]


def _automatic() -> torch.device:
    import torch

    from bench.nets.precision import has_float64

    first = next(iter(accelerators()), torch.device("cpu"))
    return first if has_float64(first) else torch.device("cpu")


def choose_device(name: str | None) -> torch.device:
    """Return the first device of a name.

    Raises:
        BenchError: see `devices_of`.
    """
    return devices_of(name)[0]


def use_device(name: str | None) -> torch.device:
    """Return the first device of a name, and make it the current one of this thread.

    Streams, events and graphs that are created without a device belong to the current device, which
    is the first one by default.

    Raises:
        BenchError: see `devices_of`.
    """
    import torch

    device = choose_device(name)
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    return device


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all work given to it."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def forget_peak_memory(device: torch.device) -> None:
    """Reset the peak of a device's memory."""
    if device.type != "cpu":
        import torch

        with contextlib.suppress(RuntimeError, NotImplementedError):  # it has no statistics
            torch.accelerator.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak of a device's allocated memory in bytes; 0 where it is not known."""
    return _memory(device, "max_memory_allocated")


def memory(device: torch.device) -> int:
    """Return a device's allocated memory in bytes; 0 where it is not known."""
    return _memory(device, "memory_allocated")


def _memory(device: torch.device, figure: str) -> int:
    if device.type == "cpu":
        return 0
    import torch

    with contextlib.suppress(RuntimeError, NotImplementedError):
        return int(getattr(torch.accelerator, figure)(device))
    return 0


def accelerator_name(device: torch.device) -> str:
    """Return an accelerator's marketing name; its kind where torch knows none."""
    import torch

    name = getattr(getattr(torch, device.type, None), "get_device_name", None)
    return str(name(device)) if name else device.type


def limits(device: torch.device) -> list[str]:
    """Return what a device cannot do, found by trying, and what happens instead."""
    if device.type == "cpu":
        return []
    return [line for line, attempt in _attempts(device).items() if not _works(attempt)]


def _attempts(device: torch.device) -> dict[str, Callable[[], object]]:
    """Return the attempts by the text that is shown if they fail."""
    import torch
    import torch.nn.functional as F

    from bench.nets.precision import check_precision, has_float64

    def need(condition: object) -> None:
        if not condition:
            raise RuntimeError

    def resize() -> object:
        image = torch.ones(1, 3, 4, 4, device=device)
        return F.interpolate(image, (2, 2), mode="bilinear", antialias=True)

    def solve() -> object:
        return torch.linalg.solve(torch.eye(2, device=device), torch.ones(2, device=device))

    def convolve() -> object:
        image, filters = torch.ones(1, 3, 4, 4), torch.ones(2, 3, 3, 3)
        return F.conv2d(image.to(device, torch.bfloat16), filters.to(device, torch.bfloat16))

    return {
        "float64: means and merges of weights are computed on the CPU": lambda: need(
            has_float64(device)
        ),
        "resizing with anti-aliasing: pools of several image sizes need --device cpu": resize,
        "linear systems: ensembles with a ridge need --device cpu": solve,
        "bfloat16: precision bfloat16 needs another device": convolve,
        "TF32: precision tf32 is refused": lambda: check_precision("tf32", device),
        "graphs: pixel steps take the backend stacked": lambda: need(device.type == "cuda"),
        "memory statistics: records give the process's memory": lambda: need(peak_memory(device)),
    }


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (RuntimeError, NotImplementedError, TypeError, BenchError):
        return False
    return True


class Counter(NamedTuple):
    """A counter of joules; `span` is where it begins again from 0, None where it does not."""

    read: Callable[[], float]
    span: float | None = None


class EnergyMeter:
    """The energy of some counters since it was made, if it is read before one has come round.

    Args:
        counters: of one device; none where its energy is not known.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._total = 0.0
        self._last = self._read()

    def _read(self) -> list[float] | None:
        try:
            return [one.read() for one in self._counters]
        except Exception:  # of whatever kind the driver's library raises
            return None

    def joules(self) -> float | None:
        """Return the energy so far; None where a counter could not be read, or there is none."""
        now = self._read()
        if not self._counters or now is None or self._last is None:
            self._last = None
            return None
        for one, before, after in zip(self._counters, self._last, now, strict=True):
            whole = 0.0 if after >= before else one.span or before  # without a span: begun anew
            self._total += after - before + whole
        self._last = now
        return self._total


def energy_meter(device: torch.device) -> EnergyMeter:
    """Return a meter of a device, which knows nothing where the machine offers no counter."""
    if device.type == "cpu":
        return EnergyMeter(processor_counters())
    return EnergyMeter(gpu_counters(device) if device.type == "cuda" else ())


def processor_counters(root: Path = POWERCAP) -> list[Counter]:
    """Return the counters of all processor packages that may be read.

    Args:
        root: the folder of Linux' powercap.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        energy = folder / "energy_uj"
        try:
            if not (folder / "name").read_text(encoding="ascii").startswith("package"):
                continue
            span = _joules(folder / "max_energy_range_uj")
            _joules(energy)
        except UNREADABLE:
            return []
        found.append(Counter(partial(_joules, energy), span))
    return found


def _joules(path: Path) -> float:
    return int(path.read_text(encoding="ascii")) / 1e6


def gpu_counters(device: torch.device) -> list[Counter]:
    """Return the counter of an NVIDIA GPU; none where NVML or the GPU does not offer it."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no NVIDIA GPU, no NVML, or one older than Volta
        return []
    return [Counter(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)]
