"""Who a process is, so that another one can tell what became of it; and its number of cores."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


@functools.cache
def this_process() -> dict[str, Any]:
    """Return the facts that `holder` judges a process by, as JSON.

    `machine` tells machines of one name apart, and containers on one machine: the boot and the
    namespace of process ids, where the system (Linux) names them.
    """
    own = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": own.pid,
        "process_started": own.create_time(),
        "machine": _machine(),
    }


def holder(facts: Mapping[str, Any]) -> str:
    """Return what became of the process that wrote some facts: `there`, `gone` or `elsewhere`."""
    here = facts["host"] == socket.gethostname()
    if not here or facts.get("machine", _machine()) != _machine():
        return "elsewhere"
    try:
        process = psutil.Process(facts["pid"])
        began, ended = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return "gone"
    return "there" if abs(began - facts["process_started"]) < 1 and not ended else "gone"


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  no path, a name
    except OSError:
        return ""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
