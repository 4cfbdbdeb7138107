"""An accelerator that any machine has: torch's `meta` device, which has shapes but no numbers.

It finds what would make a CPU wait for a real one, and what mixes tensors of both. What may read
numbers is listed with its reason, and gets zeros.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / package) for package in ("bench", "purer", "baselines"))
ITEM = torch.ops.aten._local_scalar_dense.default
CAST = torch.ops.aten._to_copy.default
COPY = torch.ops.aten.copy_.default
KNOWN: dict[Any, Any] = {}
"""What operations returned for arguments of a kind: torch finds shapes slowly, in Python."""


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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no: nothing is compiled here, and being skipped costs a detour at each operation."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        tensors = [*tensors_in((args, *kwargs.values()))]
        there = [x for x in tensors if x.is_meta]
        if not there:
            return func(*args, **kwargs)
        if is_composite(func):
            with self:  # where torch takes an operation apart only now, as in inference mode
                return func.decompose(*args, **kwargs)
        if func is ITEM:
            return self._read(torch.zeros((), dtype=there[0].dtype)).item()
        if func is CAST and str(kwargs.get("device")) == "cpu":
            dtype = kwargs.get("dtype") or there[0].dtype
            return self._read(torch.zeros(there[0].shape, dtype=dtype))
        if func is COPY and args[0].device.type == "cpu":
            return self._read(args[0].zero_())
        if func is not COPY and any(x.device.type == "cpu" and x.ndim for x in tensors):
            raise RuntimeError(f"{place()} mixes tensors of a CPU and of an accelerator ({func})")
        return self._shaped(func, args, kwargs) if makes_new(func) else func(*args, **kwargs)

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operation returns; its shapes are found once for arguments of a kind."""
        key = func, described((args, [*kwargs], [*kwargs.values()]))
        if key not in KNOWN:
            KNOWN[key] = func(*args, **kwargs)
        found = KNOWN[key]
        return like(found) if isinstance(found, Tensor) else tuple(map(like, found))

    def _read(self, zeros: Tensor) -> Tensor:
        where = place()
        if where not in self._allowed:
            raise RuntimeError(f"{where} waits for the accelerator")
        self.reads.add(where)
        return zeros


@functools.cache
def is_composite(func: Any) -> bool:
    """Tell whether torch takes an operation apart."""
    return func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


@functools.cache
def makes_new(func: Any) -> bool:
    """Tell whether all that an operation returns are new tensors: no views, nothing in place."""
    schema = func._schema
    returns = {str(one.type) for one in schema.returns}
    return returns == {"Tensor"} and not any(one.alias_info for one in schema.arguments)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among values and in the lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def like(found: Tensor | None) -> Tensor | None:
    """Return another tensor of the same kind; quicker than torch's own function."""
    if found is None:
        return None
    return torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device=found.device)


def described(value: Any) -> Any:
    """Return what of a value decides the shapes of an operation's result."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (tuple, list)):
        return tuple(map(described, value))
    return type(value), value


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
