"""Derived seeds, generators and draws: the only file that may touch global random state.

Every stream has its own seed, hashed from words that say what it is for. Adding a method, a
teacher or a draw in one place therefore changes no other stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on every part and on their order."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(*parts: str | int) -> np.random.Generator:
    """Return an independent numpy generator for the stream that the parts name."""
    return np.random.default_rng(derive_seed(*parts))


def torch_generator(*parts: str | int) -> torch.Generator:
    """Return an independent CPU torch generator for the stream that the parts name.

    Draws are made on the CPU and moved, so that a CPU and a GPU run meet the same numbers.
    """
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(derive_seed(*parts))
    return generator


def seed_global_state(*parts: str | int) -> None:
    """Seed the global streams of random, numpy and torch, for plug-ins that still use them."""
    import random

    import torch

    seed = derive_seed("global", *parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global stream is what is meant here
    torch.manual_seed(seed)


@contextlib.contextmanager
def kept_global_state() -> Iterator[None]:
    """Put the global streams of random and numpy back after the block as they were before it."""
    import random

    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def global_state() -> dict[str, str]:
    """Return a digest of the state of each global stream, by the package that it belongs to."""
    import random

    import torch

    states = {
        "random": repr(random.getstate()).encode(),
        "numpy": repr(np.random.get_state()).encode(),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    return {name: hashlib.sha256(state).hexdigest() for name, state in states.items()}


def distinct(sizes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return distinct integers below each row's size, every ordered choice equally likely.

    The first m steps of a Fisher-Yates shuffle of range(size), without the range: only values
    that a swap has moved are remembered.

    Args:
        sizes: (R,) integers, at least m each.
        draws: (R, m) uniform in [0, 1).

    Returns:
        (R, m) int32.
    """
    places = np.empty(draws.shape, dtype=np.int32)
    moved = np.empty(draws.shape, dtype=np.int32)
    chosen = np.empty(draws.shape, dtype=np.int32)
    for step in range(draws.shape[1]):
        here = np.full(len(draws), step, dtype=np.int32)
        there = (step + np.floor(draws[:, step] * (sizes - step))).astype(np.int32)
        chosen[:, step] = _value_at(there, places[:, :step], moved[:, :step])
        moved[:, step] = _value_at(here, places[:, :step], moved[:, :step])
        places[:, step] = there
    return chosen


def _value_at(place: np.ndarray, places: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return what lies at a place (R,) after the swaps that put `moved` (R, s) at `places`."""
    value = place.copy()
    for step in range(places.shape[1]):
        np.copyto(value, moved[:, step], where=places[:, step] == place)
    return value
