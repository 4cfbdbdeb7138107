"""What a record says of a cell beside its results: pool, warnings, command, cost of prediction.

The cost is in multiply-accumulate operations, per query image and per adaptation to a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import registry
from bench.contract import Learner, Pool
from bench.data.base import ImageData, Split
from bench.data.tasks import TaskList
from bench.execute.machine import describe_environment
from bench.results.record import PoolSummary
from bench.suites.cell import Cell, PoolChoice

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._ops import OpOverload

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""


def summarise_pool(pool: Pool, imported: PoolChoice | None = None) -> PoolSummary:
    """Return the record's summary of a pool."""
    kinds = [teacher.spec.architecture for teacher in pool]
    return PoolSummary(
        name=imported.name if imported else None,
        sha256=pool.sha256,
        n=len(pool),
        mean_accuracy=pool.mean_accuracy,
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        teachers=[
            {
                "name": teacher.name,
                "dataset": teacher.dataset,
                "architecture": teacher.spec.architecture,
                "image_size": teacher.spec.image_size,
                "classes": list(teacher.class_names),
                "accuracy": teacher.accuracy,
                "sha256": teacher.sha256,
                "code": teacher.code,
                "threads": teacher.threads,
            }
            for teacher in pool
        ],
    )


def warnings_of(cell: Cell) -> list[str]:
    """Return the warnings of the record."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
    if share := cell.protocol.untrustworthy_share:
        deceit = cell.protocol.untrustworthy_kind
        found.append(f"{share:.0%} of the teachers are untrustworthy on purpose ({deceit})")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def command_for(cell: Cell, command: str) -> str:
    """Return a command that re-runs this cell and its siblings."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"


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
