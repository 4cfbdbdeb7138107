"""An accelerator that any machine has: torch's `meta` device, which has shapes but no numbers.

It finds what would make a CPU wait for a real one, and what mixes tensors of both. What may read
numbers is listed with its reason, and gets zeros.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / package) for package in ("bench", "purer", "baselines"))
ITEM = torch.ops.aten._local_scalar_dense.default
CAST = torch.ops.aten._to_copy.default
COPY = torch.ops.aten.copy_.default


class Accelerator(TorchDispatchMode):
    """Within the block, reads of `meta` tensors and operations that mix them with a CPU's fail.

    Args:
        allowed: reason by place, `path:function`, of what may read; it gets zeros.

    Attributes:
        reads: the places that did.
    """

    def __init__(self, allowed: Mapping[str, str]):
        super().__init__()
        self._allowed = allowed
        self.reads: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if x.device.type == "meta"]
        if not there:
            return func(*args, **kwargs)
        with self:  # where torch takes an operation apart only now, as in inference mode
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if func is ITEM:
            return self._read(torch.zeros((), dtype=there[0].dtype)).item()
        if func is CAST and str(kwargs.get("device")) == "cpu":
            dtype = kwargs.get("dtype") or there[0].dtype
            return self._read(torch.zeros(there[0].shape, dtype=dtype))
        if func is COPY and args[0].device.type == "cpu":
            return self._read(args[0].zero_())
        if func is not COPY and any(x.device.type == "cpu" and x.ndim for x in tensors):
            raise RuntimeError(f"{place()} mixes tensors of a CPU and of an accelerator ({func})")
        return func(*args, **kwargs)

    def _read(self, zeros: Tensor) -> Tensor:
        where = place()
        if where not in self._allowed:
            raise RuntimeError(f"{where} waits for the accelerator")
        self.reads.add(where)
        return zeros


def place() -> str:
    """Return `path:function` of our innermost function that is running."""
    for frame in frames():
        name = frame.f_code.co_filename
        if name.startswith(OURS):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_code.co_qualname}"
    return "a test"


def frames() -> Iterator[Any]:
    """Yield the frames of this thread, the innermost first."""
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
