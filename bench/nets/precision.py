"""The numeric precision of networks: float32, TF32 on a GPU, or bfloat16.

`float32`   as it says; TF32, which cuDNN uses of its own accord, is switched off.
`tf32`      convolutions and matrix products round their factors to 10 bits of mantissa. CUDA only.
`bfloat16`  backbones compute their features with factors and activations of 7 bits of mantissa;
            sums are in float32. So are batch statistics, heads, distances, losses, and all that is
            learned: weights, pixels, optimisers.

It changes numbers, so it is part of a cell (`ProtocolConstants.precision`). Teachers are trained in
float32 whatever it is, and shared.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.errors import BenchError

Precision = Literal["float32", "tf32", "bfloat16"]

_current: list[Precision] = ["float32"]


def current_precision() -> Precision:
    """Return the current precision of the networks of this process."""
    return _current[-1]


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        BenchError: TF32 anywhere but on CUDA: float32 would be computed under another name.
    """
    if precision == "tf32" and device.type != "cuda":
        raise BenchError(
            f"precision = tf32 on a {device.type}, which has none; use float32 or bfloat16, or a "
            "CUDA device"
        )


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Tell whether a device computes in float64; a Mac's MPS and some XPUs do not."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).sum()
    except (TypeError, RuntimeError):
        return False
    return True


@contextlib.contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Set the precision of the process within the block, on the device.

    Raises:
        BenchError: the device does not have it.
    """
    check_precision(precision, device)
    before = _allows_tf32()
    allow_tf32(precision == "tf32")
    _current.append(precision)
    try:
        yield
    finally:
        _current.pop()
        allow_tf32(*before)


def _allows_tf32() -> tuple[bool, bool]:
    return bool(torch.backends.cuda.matmul.allow_tf32), torch.backends.cudnn.allow_tf32


def allow_tf32(products: bool, convolutions: bool | None = None) -> None:
    """Let CUDA round factors of matrix products, and of convolutions (None: alike), to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = products if convolutions is None else convolutions


class _BFloat16Products(TorchFunctionMode):
    """Gives convolutions and linear layers bfloat16 factors, also within `torch.func` transforms.

    There autocast (seen in torch 2.15) does nothing and says nothing, and batch norm takes no
    bfloat16 activations with float32 statistics; so these are normalised in float32.
    """

    PRODUCTS = (F.conv2d, F.linear)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run one operation."""
        kwargs = kwargs or {}
        if func in self.PRODUCTS:
            args = [a.bfloat16() if isinstance(a, Tensor) else a for a in args]
        elif func is F.batch_norm and args[0].dtype == torch.bfloat16:
            return func(args[0].float(), *args[1:], **kwargs).bfloat16()
        return func(*args, **kwargs)


def in_current_precision(features: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a backbone's method `features` computing in the current precision, float32 out.

    Weights are cast anew for each operation, never kept: the optimiser changes them.
    """

    @functools.wraps(features)
    def run(net: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if current_precision() != "bfloat16":
            return features(net, x, *args, **kwargs)
        autocast = torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False)
        with autocast, _BFloat16Products():
            return features(net, x, *args, **kwargs).to(x.dtype)

    return run
