"""The process: its set-up, and its description in the record."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.execute.devices import accelerator_name
from bench.processes import available_cores
from bench.results.maker import git_state
from bench.results.record import Device, Environment

if TYPE_CHECKING:
    import torch

_PACKAGES = ("purer-bench", "torch", "torchvision", "numpy", "scipy", "pillow", "safetensors")


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Load torch, if it is not there yet, without looking for garbage in what its modules make.

    There is next to none, and the look takes a sixth of the time; so nobody looks there later, too.
    Where a network's library loads triton as well, somebody must: triton prints what nobody frees.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if "triton" not in sys.modules:
            gc.freeze()
        gc.enable()


@functools.cache
def prepare_process(threads: int = 1) -> None:
    """Set up the process for numeric work; for a number of threads, changes speed only.

    Float32 means float32: TF32 is off until a cell asks for it (`bench/nets/precision.py`).
    Large buffers stay with the process instead of going back to the kernel after each use: fresh
    pages cost a third of a Conv4 training step on a CPU (glibc only; elsewhere nothing changes).
    The largest, of 128 MiB or more, do go back: what they leave is too large to be filled again, so
    that training a ResNet18 at 84 px took 9 GB where 6 do, and no less time.
    """
    import torch

    from bench.nets.precision import allow_tf32

    allow_tf32(False)
    torch.set_num_threads(threads)
    if (libc := _glibc()) is not None:
        mmap_threshold, trim_threshold = -3, -1
        libc.mallopt(mmap_threshold, 1 << 27)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Return freed memory, which `prepare_process` keeps, to the kernel (glibc only)."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process where it is glibc, else None."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        return ctypes.CDLL(None)
    return None


def describe_device(device: torch.device) -> Device:
    """Return the device's type, marketing name and the CPU threads in use."""
    import torch

    name = cpu_name() if device.type == "cpu" else accelerator_name(device)
    return Device(type=device.type, name=name, threads=torch.get_num_threads())


@functools.cache
def cpu_name() -> str:
    """Return the processor's model name and the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = named[0] if named else model
    cores = available_cores()
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"


@functools.cache
def describe_environment() -> Environment:
    """Return versions and the commit of the checkout that the code runs from."""
    commit, dirty = git_state(Path(__file__).resolve().parents[2])
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        git_commit=commit,
        git_dirty=dirty,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
