"""Task arithmetic: the shared initialisation plus a multiple of the sum of task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from baselines.merging._merging import MergeConfig
from baselines.merging._task_vectors import TaskVectorMerge
from bench.contract import FitContext

if TYPE_CHECKING:
    from torch import Tensor


class TaskArithmeticConfig(MergeConfig):
    """The multiple of the sum of task vectors."""

    scale: float | None = Field(0.4, gt=0)
    """factor of the sum of all task vectors; None: 1 / N, which is the average. Source: 0.4 is
    what Yadav et al., arXiv 2306.01708, use where no validation data is at hand."""


class TaskArithmetic(TaskVectorMerge[TaskArithmeticConfig]):
    """Sum of the teachers' task vectors, scaled and added to their shared initialisation.

    Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089, section 3
    (addition). Departures: the start is a random initialisation that all teachers share, not a
    pre-trained network; the factor is fixed, as there is no validation data to choose it on; batch
    norm statistics are averaged.
    """

    name = "task_arithmetic"
    Config = TaskArithmeticConfig
    presets: ClassVar = {**TaskVectorMerge.presets}

    def combine(self, vectors: Tensor, context: FitContext[TaskArithmeticConfig]) -> Tensor:
        """Return the scaled sum (D,) of task vectors (N, D)."""
        scale = context.config.scale
        return vectors.mean(0) if scale is None else scale * vectors.sum(0)
