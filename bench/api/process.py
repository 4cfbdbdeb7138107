"""The process as it was before a call: random streams, CPU threads, precision; and its folders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench.checkpoints import Keeping
from bench.data.base import ImageData
from bench.execute.devices import choose_device
from bench.execute.progress import Progress, Standing
from bench.execute.state import RunState
from bench.nets.precision import computing_in
from bench.paths import default_cache, user_path
from bench.seeds import kept_global_state

CPU = torch.device("cpu")
Told = Callable[[Standing], None]
"""Called with how far a fit or a test is, often; see `Standing.text`."""
Folder = str | Path | None
"""A folder of the user's; None takes the default."""


def cache_folder(cache: Folder) -> Path:
    """Return the cache folder that a user names, or the one that commands take by default."""
    return default_cache() if cache is None else user_path(cache)


def state_of(
    data: ImageData, device: str | None, cache: Folder, progress: Told | None, told: str
) -> RunState:
    """Return the state of a call, as a run has it.

    Args:
        data: its data set.
        device: its device by name.
        cache: where teachers and fits are kept.
        progress: gets each standing.
        told: the call, for messages.

    Raises:
        BenchError: the device is not there.
    """
    folder = cache_folder(cache)
    return RunState(
        suite="python",
        runs=folder,
        cache=folder,
        device=choose_device(device),
        data={data.name: data},
        command=told,
        progress=Progress(progress) if progress else Progress(),
        keeping=Keeping(),
    )


@contextlib.contextmanager
def as_it_was(device: torch.device = CPU, threads: int = 1) -> Iterator[None]:
    """Compute in float32 on a device inside the block; leave the process as it was before it.

    Put back are the global random streams of Python, numpy and torch, torch's CPU threads, the
    current accelerator, and whether CUDA may round to TF32.

    Args:
        device: made the current one within the block.
        threads: CPU threads within the block, one as commands take: on a CPU their number decides
            how sums are cut up.
    """
    before = torch.get_num_threads()
    numbers = [device.index or 0] if device.type in ("cuda", "xpu") else []
    kind = device.type if numbers else "cuda"
    current = torch.accelerator.device_index(numbers[0] if numbers else None)
    streams = torch.random.fork_rng(numbers, device_type=kind)
    with kept_global_state(), current, streams, computing_in("float32", CPU):
        try:
            torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(before)
