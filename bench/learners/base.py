"""Shared parts of learners: settings, batching, losses, and tasks of another image size.

One task is a pure function of (parameters, images, labels); `bench/learners/batching.py` runs many,
`bench/learners/norms.py` has the batch norm modes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from bench.contract import (
    Backbone,
    BnMode,
    Config,
    DrawingLearner,
    EmbeddingLearner,
    Learner,
    MetaLearner,
    TaskBatch,
)
from bench.errors import BenchError
from bench.learners import batching
from bench.nets.base import resize
from bench.nets.norm import Norm

Params = Mapping[str, Tensor]


class LearnerSettings(Config):
    """How a learner adapts; the protocol has one set for training and one for testing."""

    inner_lr: float = Field(default=0.01, gt=0)
    """SGD's rate in the inner loop. Source: the paper's released scripts."""
    inner_steps: int = Field(default=1, ge=0)
    """gradient steps of the inner loop. Source: the paper's released scripts."""
    bn: BnMode = "transductive"
    """`transductive`: support and queries each by their own batch; `support`: queries by the
    support's statistics; `running`: stored statistics"""
    first_order: bool = False
    """whether the inner gradient counts as a constant in the outer gradient (FOMAML)"""
    n_way: int | None = Field(default=None, ge=1)
    """classes of a task, so that an accelerator's labels need not be read; None reads them"""


def count_ways(support_y: Tensor, known: int | None = None) -> int:
    """Return the number of classes of the tasks' labels (T, S) or (S,).

    Args:
        support_y: the labels; a CPU's are read and checked.
        known: what to return for labels on an accelerator, as reading them makes the CPU wait for
            all that the accelerator was given; None reads and checks them, too.

    Raises:
        BenchError: some class below the highest label has no support image in some task.
    """
    if known is not None and batching.batches_tasks(support_y.device):
        return known
    n_way = int(support_y.max()) + 1
    present = (support_y.unsqueeze(-1) == torch.arange(n_way, device=support_y.device)).any(-2)
    if not bool(present.all()):
        raise BenchError(
            f"a support set has labels up to {n_way - 1} but lacks one of the classes below; "
            "give every class at least one support image"
        )
    return n_way


class _Features(nn.Module):
    def __init__(self, net: Backbone) -> None:
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

    def __init__(self, net: Backbone, settings: LearnerSettings) -> None:
        self.net, self.settings = net, settings
        self._features = _Features(net)

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
        self._refuse_labels(count_ways(support_y, self.settings.n_way))
        return self._all_tasks(params, *tasks, self.n_way(support_y))

    def outer_loss(self, params: Params, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Return query losses (T,) and query logits; see `MetaLearner.outer_loss`."""
        images = tasks.support_x, tasks.support_y, tasks.query_x
        logits = self._all_tasks(params, *images, self.n_way(tasks.support_y))
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
        """Raise an error if the learner has no output for a class."""

    def _all_tasks(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, n_way: int
    ) -> Tensor:
        def one(support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
            return self.task_logits(params, support_x, support_y, query_x, n_way)

        return batching.over_tasks(one, support_x, support_y, query_x)


def resize_tasks(tasks: TaskBatch, size: int) -> TaskBatch:
    """Return the same tasks with images of another side length."""
    support_x, query_x = resize(tasks.support_x, size), resize(tasks.query_x, size)
    return TaskBatch(support_x, tasks.support_y, query_x, tasks.query_y)


def resized(learner: Learner, size: int) -> Learner:
    """Return the learner for tasks of any image size; images are resized to its own.

    Args:
        learner: what predicts.
        size: the side of the images it takes, pixels.
    """
    if isinstance(learner, EmbeddingLearner):
        return _ResizedEmbedding(learner, size)
    if isinstance(learner, DrawingLearner):
        return _ResizedDrawing(learner, size)
    return _Resized(learner, size)


class _Resized(Learner):
    def __init__(self, learner: Learner, size: int) -> None:
        self.learner, self.size = learner, size

    @property
    def n_parameters(self) -> int:
        return self.learner.n_parameters

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        return self.learner.predict(
            resize(support_x, self.size), support_y, resize(query_x, self.size)
        )


class _ResizedDrawing(_Resized, DrawingLearner):
    learner: DrawingLearner

    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        return self.learner.predict_from(
            first, resize(support_x, self.size), support_y, resize(query_x, self.size)
        )


class _ResizedEmbedding(EmbeddingLearner):
    def __init__(self, learner: EmbeddingLearner, size: int) -> None:
        self.learner, self.size = learner, size

    @property
    def n_parameters(self) -> int:
        return self.learner.n_parameters

    def embed(self, images: Tensor) -> Tensor:
        return self.learner.embed(resize(images, self.size))

    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        return self.learner.predict_embedded(support_e, support_y, query_e)
