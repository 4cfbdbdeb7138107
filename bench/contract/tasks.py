"""Few-shot tasks as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TaskShape:
    """n_way classes, k_shot support and n_query query images of each."""

    n_way: int
    k_shot: int
    n_query: int = 15


@dataclass(frozen=True)
class TaskBatch:
    """T tasks of one shape; labels run from 0 to n_way - 1, images are normalised float.

    support_x (T, n_way * k_shot, C, H, W), support_y (T, n_way * k_shot),
    query_x (T, n_way * n_query, C, H, W), query_y (T, n_way * n_query).
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def __len__(self) -> int:
        return self.support_x.shape[0]

    def to(self, device: torch.device | str) -> TaskBatch:
        """Return the same tasks on another device."""
        return TaskBatch(
            self.support_x.to(device),
            self.support_y.to(device),
            self.query_x.to(device),
            self.query_y.to(device),
        )
