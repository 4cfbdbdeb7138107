"""Clocks and samplers; on a GPU they synchronise, and they time only the work itself."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil

from bench.execute.devices import energy_meter, forget_peak_memory, memory, peak_memory, wait_for
from bench.execute.machine import return_freed_memory

if TYPE_CHECKING:
    import torch

MEMORY_INTERVAL = 0.1
SAMPLE_INTERVAL = 5.0


class Elapsed(NamedTuple):
    """What something took: seconds by the clock, and CPU seconds of all threads of the process.

    The CPU's are the smaller ones of one thread that other programs kept waiting.
    """

    seconds: float = 0.0
    cpu: float = 0.0

    @classmethod
    def now(cls) -> Self:
        """Return the readings of both clocks."""
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state_dict` returned; an older one knows no CPU seconds."""
        cpu = state.get("cpu_seconds")
        return cls(state["seconds"], math.nan if cpu is None else cpu)

    def state_dict(self) -> dict[str, float | None]:
        """Return both; None for CPU seconds that are not known."""
        return {"seconds": self.seconds, "cpu_seconds": self.known_cpu}

    @property
    def known_cpu(self) -> float | None:
        """The CPU seconds; None where they are not known."""
        return None if math.isnan(self.cpu) else self.cpu

    def plus(self, other: Elapsed) -> Elapsed:
        """Return the sum."""
        return Elapsed(self.seconds + other.seconds, self.cpu + other.cpu)

    def minus(self, other: Elapsed) -> Elapsed:
        """Return the difference."""
        return Elapsed(self.seconds - other.seconds, self.cpu - other.cpu)


class Stopwatch:
    """Accumulates what `running()` blocks take; it waits for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.elapsed = Elapsed()
        self._excluded = Elapsed()
        self._started: Elapsed | None = None

    @property
    def so_far(self) -> Elapsed:
        """What it took so far, the block under way included (without waiting for the device)."""
        if self._started is None:
            return self.elapsed
        block = Elapsed.now().minus(self._started).minus(self._excluded)
        return self.elapsed.plus(block)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block, without what `paused()` blocks inside it take."""
        self._excluded = Elapsed()
        with _timed(self.device) as elapsed:
            self._started = Elapsed.now()
            yield
        self._started = None
        self.elapsed = self.elapsed.plus(elapsed[0]).minus(self._excluded)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block out of the enclosing `running()` block."""
        elapsed = [Elapsed()]
        try:
            with _timed(self.device) as elapsed:
                yield
        finally:
            self._excluded = self._excluded.plus(elapsed[0])


class Pace:
    """The speed of a loop: its steps, their counters, and their seconds.

    It counts from the end of the first step to the end of the last, on a clock that stands still
    while the harness validates and saves. What comes before the loop, and the first step, which
    plans kernels and warms caches, are left out; so are they after each resumption.
    """

    def __init__(self, clock: Stopwatch, state: Mapping[str, Any] | None = None) -> None:
        self._clock = clock
        state = state or {}
        self.steps: int = state.get("steps", 0)
        self.seconds: float = state.get("seconds", 0.0)
        self.counts: dict[str, int] = dict(state.get("counts", {}))
        self._last: tuple[int, float, dict[str, int]] | None = None

    def step(self, number: int, counters: Mapping[str, int]) -> None:
        """Note the end of a step, and the counters then."""
        now, counts = self._clock.so_far.seconds, dict(counters)
        if self._last is not None:
            before, then, earlier = self._last
            self.steps += number - before
            self.seconds += now - then
            for name, amount in counts.items():
                grown = amount - earlier.get(name, 0)
                self.counts[name] = self.counts.get(name, 0) + grown
        self._last = (number, now, counts)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been measured so far."""
        return {"steps": self.steps, "seconds": self.seconds, "counts": dict(self.counts)}


@contextlib.contextmanager
def _timed(device: torch.device) -> Iterator[list[Elapsed]]:
    """Yield a list that holds what the block took once it has ended."""
    elapsed = [Elapsed()]
    wait_for(device)
    start = Elapsed.now()
    try:
        yield elapsed
    finally:
        wait_for(device)
        elapsed[0] = Elapsed.now().minus(start)


class SystemSampler:
    """Samples CPU, memory and GPU in a thread of its own while a cell runs.

    `rows` holds a sample every five seconds; `peak_memory_bytes` is the peak of the accelerator's
    allocator where it says, else the largest resident size of the process, looked at ten times a
    second; what the cells before have freed does not count. `energy_j` are joules, None where the
    machine counts none.

    Args:
        device: that is sampled beside the processor.
        seen: gets each sample: the seconds since the first, its number from 0, and its values.
    """

    def __init__(
        self,
        device: torch.device,
        seen: Callable[[float, int, Mapping[str, float]], object] = lambda *sample: None,
    ) -> None:
        self.device = device
        self._seen = seen
        self.rows: dict[str, list[float]] = {}
        self._process = psutil.Process()
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SystemSampler:
        forget_peak_memory(self.device)
        return_freed_memory()
        self._process.cpu_percent()
        self._energy = energy_meter(self.device)
        self._sample(0.0)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_memory_bytes(self) -> int:
        """The peak so far."""
        return peak_memory(self.device) or max(self._peak, self._process.memory_info().rss)

    @property
    def energy_j(self) -> float | None:
        """The energy so far; asked for once the thread has ended."""
        return self._energy.joules()

    def _run(self) -> None:
        start = last = time.monotonic()
        while not self._stop.wait(MEMORY_INTERVAL):
            self._peak = max(self._peak, self._process.memory_info().rss)
            if time.monotonic() - last >= SAMPLE_INTERVAL:
                last = time.monotonic()
                self._sample(last - start)

    def _sample(self, seconds: float) -> None:
        resident = self._process.memory_info().rss
        self._peak = max(self._peak, resident)
        self._energy.joules()  # before its counters come round
        sample = {
            "seconds": seconds,
            "cpu_percent": self._process.cpu_percent(),
            "memory_bytes": float(resident),
        }
        if self.device.type != "cpu":
            sample["gpu_memory_bytes"] = float(memory(self.device))
        if self.device.type == "cuda":
            import torch

            with contextlib.suppress(Exception):  # utilisation needs a driver that reports it
                sample["gpu_percent"] = float(torch.cuda.utilization(self.device))
        for name, value in sample.items():
            self.rows.setdefault(name, []).append(value)
        self._seen(seconds, len(self.rows["seconds"]) - 1, sample)
