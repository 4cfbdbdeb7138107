"""CUDA graphs: a fixed sequence of operations recorded once and launched as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UPS = 3
"""Runs before the recording, in which libraries choose their kernels and make their buffers."""


class Graphed:
    """A function of CUDA tensors, recorded; shapes and control flow stay as they were then.

    Whatever else the function reads must stay at its place in memory (change it in place). It may
    not wait for the device, and not draw random numbers.

    Args:
        function: (tensors …) → tensors.
        examples: inputs of the shapes to come, on one CUDA device.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor]
    ) -> None:
        self._inputs = [example.detach().clone() for example in examples]
        device = self._inputs[0].device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._outputs = list(function(*self._inputs))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the function would; valid until the next call."""
        for buffer, value in zip(self._inputs, inputs, strict=True):
            buffer.copy_(value)
        self._graph.replay()
        return self._outputs
