"""What gradient and metric learners share: settings, BN modes, and running many tasks.

One task is a pure function of (parameters, images, labels). On a CPU tasks run one after the
other: four to seven times as fast as `torch.func.vmap`, whose grouped convolutions and poolings
are slow there. Elsewhere they are batched with `vmap`, in chunks that fit in about a gigabyte.

Under `vmap`, the `batch_norm` of torch (seen in 2.15) gives second-order gradients that are off by
a thousandth, silently; so batched tasks normalise in elementary operations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bench.contract import Config, MetaLearner, TaskBatch
from bench.errors import BenchError
from bench.nets.base import Backbone
from bench.nets.conv4 import plain_block
from bench.nets.fast.fused import batch_block
from bench.nets.norm import Norm, batch_norm, batch_statistics, running_norm

Params = Mapping[str, Tensor]
BnMode = Literal["transductive", "support", "running"]
CHUNK_BYTES = 2**30
"""What one batched prediction may hold, roughly."""


class LearnerSettings(Config):
    """How a learner adapts; the protocol says, once for training and once for testing."""

    inner_lr: float = Field(0.01, gt=0)
    """SGD's rate in the inner loop. Source: the paper's released scripts."""
    inner_steps: int = Field(1, ge=0)
    """gradient steps of the inner loop. Source: the paper's released scripts."""
    bn: BnMode = "transductive"
    """`transductive`: support and queries each by their own batch; `support`: queries by the
    support's statistics; `running`: stored statistics"""
    first_order: bool = False
    """whether the inner gradient counts as a constant in the outer gradient (FOMAML)"""


class SupportStatistics:
    """A norm for BN mode `support`: collects over the support, then replays on the queries.

    Written out where it replays, because `batch_norm` lets no gradient into given statistics.
    """

    def __init__(self) -> None:
        self._collected: list[tuple[Tensor, Tensor]] = []

    def collect(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise the support (B, C, H, W) by its own statistics, and keep them."""
        self._collected.append(batch_statistics(x))
        return task_batch_norm(layer, x)

    def replay(self) -> Norm:
        """Return the norm of one pass over queries, layers in the order of the collecting pass."""
        collected = iter(self._collected)

        def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
            return _normalise(layer, x, *next(collected))

        return norm


def _normalise(layer: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Normalise (B, C, H, W) by given statistics (C,), (C,), all differentiable."""
    scale = layer.weight * torch.rsqrt(variance + layer.eps)
    shift = layer.bias - mean * scale
    return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def elementary_batch_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise by the batch's own statistics, in operations that `vmap` differentiates rightly."""
    return _normalise(layer, x, *batch_statistics(x))


def batches_tasks(device: torch.device) -> bool:
    """Tell whether tasks are batched on a device, rather than run one after the other."""
    return device.type != "cpu"


class TaskBatchNorm:
    """A norm by the batch's own statistics, as fast as is right on the device."""

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return (elementary_batch_norm if batches_tasks(x.device) else batch_norm)(layer, x)

    def conv_block(self, conv: nn.Conv2d, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Do a block of Conv4 at once where tasks are not batched; see `nets/fast`."""
        if batches_tasks(x.device):
            return plain_block(self, conv, layer, x)
        return batch_block(conv, layer, x)


task_batch_norm = TaskBatchNorm()


def own_norm(bn: BnMode) -> Norm:
    """Return the norm that a support set is passed with."""
    return running_norm if bn == "running" else task_batch_norm


def query_output(
    bn: BnMode, run: Callable[[Tensor, Norm], Tensor], support_x: Tensor, query_x: Tensor
) -> Tensor:
    """Return run(query_x, norm) with the norm that the BN mode asks for.

    Args:
        bn: the mode; `support` passes the support first to collect its statistics.
        run: a network's pass, (images, norm) → outputs.
        support_x: images (S, C, H, W).
        query_x: images (Q, C, H, W).
    """
    if bn != "support":
        return run(query_x, own_norm(bn))
    statistics = SupportStatistics()
    run(support_x, statistics.collect)
    return run(query_x, statistics.replay())


def count_ways(support_y: Tensor) -> int:
    """Return the number of classes of the tasks' labels (T, S) or (S,).

    Raises:
        BenchError: some class below the highest label has no support image in some task.
    """
    n_way = int(support_y.max()) + 1
    present = (support_y.unsqueeze(-1) == torch.arange(n_way, device=support_y.device)).any(-2)
    if not bool(present.all()):
        raise BenchError(
            f"a support set has labels up to {n_way - 1} but lacks one of the classes below; "
            "give every class at least one support image"
        )
    return n_way


class _Features(nn.Module):
    def __init__(self, net: Backbone):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, norm: Norm) -> Tensor:
        return self.net.features(x, norm)


class FunctionalLearner(MetaLearner):
    """A meta-learner given by one function, `task_logits`; batching and losses are done here.

    Args:
        net: a backbone that holds the meta-model's weights; never changed.
        settings: see `LearnerSettings`.
    """

    def __init__(self, net: Backbone, settings: LearnerSettings):
        self.net, self.settings = net, settings
        self._features = _Features(net)
        self._ways: dict[tuple[torch.Size, torch.Size], int] = {}

    @abstractmethod
    def task_logits(
        self,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        n_way: int | None = None,
    ) -> Tensor:
        """Adapt to one task and predict it; differentiable in parameters and images.

        Args:
            params: the meta-model's parameters by name.
            support_x: images (S, C, H, W).
            support_y: labels (S,) in [0, n_way).
            query_x: images (Q, C, H, W).
            n_way: the number of classes; None reads it off the labels.

        Returns:
            Logits (Q, n_way).
        """

    @abstractmethod
    def n_way(self, support_y: Tensor) -> int:
        """Return the number of logits for tasks with these support labels (T, S)."""

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return logits (T, Q, n_way) at the net's own parameters; see `Learner.predict`.

        Raises:
            BenchError: a class has no support image, or the net has no output for it.
        """
        params = {name: p.detach() for name, p in self.net.named_parameters()}
        tasks = (support_x.detach(), support_y, query_x.detach())
        self._refuse_labels(count_ways(support_y))
        return self._all_tasks(params, *tasks, self.n_way(support_y))

    def outer_loss(self, params: Params, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Return query losses (T,) and logits (T, Q, n_way); see `MetaLearner.outer_loss`."""
        images = tasks.support_x, tasks.support_y, tasks.query_x
        logits = self._all_tasks(params, *images, self._known_n_way(tasks))
        losses = F.cross_entropy(logits.transpose(1, 2), tasks.query_y, reduction="none")
        return losses.mean(1), logits

    def features(self, params: Params, x: Tensor, norm: Norm) -> Tensor:
        """Return the features (B, n_features) of images (B, C, H, W) at given parameters."""
        named = {f"net.{name}": parameter for name, parameter in params.items()}
        return functional_call(self._features, named, (x, norm))

    def logits(self, params: Params, x: Tensor, norm: Norm) -> Tensor:
        """Return the head's outputs (B, n_classes) of images at given parameters."""
        return functional_call(self.net, dict(params), (x, norm))

    def _refuse_labels(self, n_way: int) -> None:
        """Raise where the learner has no output for a class."""

    def _known_n_way(self, tasks: TaskBatch) -> int:
        """Return `n_way`; beside a CPU, labels are read and checked once for a shape of tasks.

        Reading them has the CPU wait for all that the device was given; the tasks of a
        meta-training are of one shape.
        """
        if not batches_tasks(tasks.support_y.device):
            return self.n_way(tasks.support_y)
        shape = tasks.support_y.shape, tasks.query_y.shape
        if shape not in self._ways:
            self._ways[shape] = self.n_way(tasks.support_y)
        return self._ways[shape]

    def _all_tasks(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, n_way: int
    ) -> Tensor:
        def one(support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
            return self.task_logits(params, support_x, support_y, query_x, n_way)

        return over_tasks(one, support_x, support_y, query_x)


def over_tasks(
    one: Callable[[Tensor, Tensor, Tensor], Tensor],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
) -> Tensor:
    """Apply a function of one task to T tasks, as is fastest on their device.

    Args:
        one: (images (S, C, H, W), labels (S,), images (Q, C, H, W)) → logits (Q, n_way).
        support_x: (T, S, C, H, W).
        support_y: (T, S).
        query_x: (T, Q, C, H, W).

    Returns:
        Logits (T, Q, n_way).
    """
    apply = batched if batches_tasks(support_x.device) else one_by_one
    return apply(one, support_x, support_y, query_x)


def one_by_one(
    one: Callable[[Tensor, Tensor, Tensor], Tensor],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
) -> Tensor:
    """Apply a function of one task to each of T tasks, with channels last in memory.

    Channels-last images halve the time of a Conv4 on a CPU.
    """
    return torch.stack(
        [
            one(channels_last(s), y, channels_last(q))
            for s, y, q in zip(support_x, support_y, query_x, strict=True)
        ]
    )


def batched(
    one: Callable[[Tensor, Tensor, Tensor], Tensor],
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
) -> Tensor:
    """Apply a function of one task to T tasks at once, in chunks of bounded memory."""
    return vmap(one, chunk_size=tasks_per_chunk(support_x, query_x))(support_x, support_y, query_x)


def tasks_per_chunk(support_x: Tensor, query_x: Tensor) -> int:
    """Return how many tasks fit in `CHUNK_BYTES`: four activations of 64 channels each."""
    pixels = (support_x.shape[1] + query_x.shape[1]) * support_x.shape[-1] * support_x.shape[-2]
    return max(1, CHUNK_BYTES // (4 * 64 * pixels * support_x.element_size()))


def channels_last(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with channels last in memory."""
    return images.contiguous(memory_format=torch.channels_last)
