"""Which of several equal ways to compute a fit takes: fixed, or measured once and kept.

The environment variable `PURER_BENCH_STRATEGY` says how the choice is made:

`auto`      (default) on a CPU the way that a method names first, so that a fit is the same bit by
            bit on every machine of one kind; elsewhere `measure`.
`measure`   each way is timed once for each device and subject; `<cache>/strategies.json` keeps
            the times, and later fits follow them.
a name      that way where it is offered (`plain`, `fused`, `stacked`, `graphed`), else the first.

Ways differ in rounding only, so they are no part of a cell's hash; a fit's record names the way
taken, and a resumed fit goes on with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from bench.contract import first_of
from bench.execute.machine import describe_device
from bench.nets.precision import current_precision
from bench.results.files import write_json

VARIABLE = "PURER_BENCH_STRATEGY"
FILE = "strategies.json"
RUNS = 3


class Strategies:
    """Chooses for the fits of one process and device, and remembers what it chose.

    Args:
        cache: the cache folder.
        device: where the work is done.
        setting: `auto`, `measure` or a way's name; None reads `PURER_BENCH_STRATEGY`.
    """

    def __init__(self, cache: Path, device: torch.device, setting: str | None = None):
        setting = setting or os.environ.get(VARIABLE) or "auto"
        if setting == "auto":
            setting = "first" if device.type == "cpu" else "measure"
        self._cache, self._device, self._setting = cache, device, setting
        self.chosen: dict[str, str] = {}

    def __call__(self, subject: str, trials: Mapping[str, Callable[[], object]]) -> str:
        """Return the way to take; see `bench.contract.Choose`."""
        if self._setting == "measure":
            name = self._measured(subject, trials)
        elif self._setting in trials:
            name = self._setting
        else:
            name = first_of(subject, trials)
        self.chosen[subject] = name
        return name

    def _measured(self, subject: str, trials: Mapping[str, Callable[[], object]]) -> str:
        device = describe_device(self._device).model_dump_json()
        precision = current_precision()
        key = f"{device} {torch.__version__} {subject}"
        key += "" if precision == "float32" else f" {precision}"
        path = self._cache / FILE
        known = _read(path)
        if set(known.get(key, {})) != set(trials):
            known[key] = {name: self._seconds(run) for name, run in trials.items()}
            write_json(path, {**_read(path), key: known[key]})
        times = {name: seconds for name, seconds in known[key].items() if seconds is not None}
        return min(times, key=times.__getitem__) if times else first_of(subject, trials)

    def _seconds(self, run: Callable[[], object]) -> float | None:
        """Return the best of a few runs after one to warm up; None where the way does not work."""
        try:
            run()
            times = []
            for _ in range(RUNS):
                self._wait()
                start = time.perf_counter()
                run()
                self._wait()
                times.append(time.perf_counter() - start)
        except RuntimeError:  # out of memory, or an operation that the device lacks
            return None
        return min(times)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _read(path: Path) -> dict[str, dict[str, float | None]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
