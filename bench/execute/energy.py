"""The energy that a device used, by the counter that it keeps itself, where it has one.

An NVIDIA GPU's is read through NVML, a processor's from Linux' powercap (RAPL), whose files usually
only root may read. Both count all that ran on the device, not this process alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
UNREADABLE = (OSError, ValueError)


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
