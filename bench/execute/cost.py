"""Cost of prediction: multiply-accumulate operations per query image and per adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.contract import Learner
from bench.data.base import ImageData, Split
from bench.data.tasks import TaskList

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._ops import OpOverload


class MacCounter(TorchDispatchMode):
    """Counts the multiply-accumulate operations (MACs) of all code within the block.

    It uses the formulas of torch's `FlopCounterMode`, which itself hooks modules and so fails where
    gradients with respect to a network's inputs are computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to load its compiler, 800 modules, to keep it out of the block."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=result) // 2
        return result


def inference_cost(
    learner: Learner, data: ImageData, split: Split, tasks: TaskList, device: torch.device
) -> tuple[int, int]:
    """Return (MACs of one query image, MACs of adapting to one task), counted on a real task.

    A prediction with half of the queries is compared with one with all of them: the difference is
    the cost of the queries, the rest is adaptation.
    """
    batch = tasks.batch(split, 0, 1, data.mean, data.std, device)
    n_query = batch.query_x.shape[1]
    half = n_query // 2

    def macs(query_x: Tensor) -> int:
        with MacCounter() as counter:
            learner.predict(batch.support_x, batch.support_y, query_x)
        return counter.macs

    whole = macs(batch.query_x)
    if half == 0:
        return whole, 0
    per_image = (whole - macs(batch.query_x[:, :half])) // (n_query - half)
    return per_image, max(0, whole - per_image * n_query)
