"""Shared parts of task-vector methods: differences from the shared initialisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.merging._channels import State
from baselines.merging._merging import Merge, MergeT, states_of
from bench.contract import FitContext, Teacher
from bench.errors import BenchError
from bench.training.initialisation import average_state


class TaskVectorMerge(Merge[MergeT]):
    """A merge of the teachers' differences from their shared initialisation."""

    needs = frozenset({"same_architecture", "shared_initialisation"})

    @abstractmethod
    def combine(self, vectors: Tensor, context: FitContext[MergeT]) -> Tensor:
        """Return the merged task vector (D,) of the teachers' task vectors (N, D), float64."""

    def merge(self, context: FitContext[MergeT], teachers: Sequence[Teacher]) -> dict[str, Tensor]:
        """Combine all parameters as one vector; batch norm statistics are averaged.

        Raises:
            BenchError: the pool does not say where its teachers started.
        """
        spec = teachers[0].spec
        if spec not in context.pool.initial_states:
            raise BenchError(
                f"the pool holds no shared initialisation of its {spec.architecture} teachers; "
                "use a pool with shared_initialisation"
            )
        start = context.pool.initial_states[spec]
        states = states_of(teachers, context.config.head)
        names = [n for n, _ in teachers[0].net.named_parameters() if n in states[0]]
        origin = _flat(start, names, states[0])
        vectors = torch.stack([_flat(state, names, states[0]) - origin for state in states])
        result = origin + self.combine(vectors, context)
        merged = average_state(states)
        sizes = [merged[name].numel() for name in names]
        for name, part in zip(names, result.split(sizes), strict=True):
            merged[name] = part.view(merged[name].shape).to(merged[name].dtype)
        return merged


def _flat(state: State, names: Sequence[str], like: State) -> Tensor:
    """Return the named entries as one vector (D,), float64, on the teachers' device."""
    return torch.cat([state[name].to(like[name].device).double().flatten() for name in names])
