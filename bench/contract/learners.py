"""Learners, which adapt to the support set of a task and predict its queries; calibrations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Literal

from bench.contract.config import Config, ConfigT

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Inference = Literal["inductive", "transductive"]
"""Whether a query is predicted alone, or with the help of the task's other queries."""


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


class Learner(ABC):
    """Adapts to a support set and predicts a query set, for many tasks at once."""

    version: ClassVar[int] = 1
    """raised when a change of the code changes its predictions; see `Method.version`"""
    transductive: ClassVar[bool] = False
    """whether a query's logits depend on the other queries for another reason than batch norm in
    the mode `transductive`, which always counts"""

    @abstractmethod
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return the logits of the queries; builds no graph that outlives the call.

        Args:
            support_x: images (T, n_way * k_shot, C, H, W).
            support_y: labels (T, n_way * k_shot) in [0, n_way).
            query_x: images (T, n_way * n_query, C, H, W).

        Returns:
            Logits (T, n_way * n_query, n_way).
        """

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""


class TaskEmbeddingLearner(Learner):
    """A learner that classifies embeddings, which a calibration may classify in its place.

    The embedding of an image may depend on the other images of its task.
    """

    @abstractmethod
    def embed_tasks(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (T, S, D), (T, Q, D) of images (T, S, C, H, W), (T, Q, C, H, W)."""

    def n_way(self, support_y: Tensor) -> int:
        """Return the number of classes of tasks with these support labels (T, S)."""
        return int(support_y.max()) + 1


class EmbeddingLearner(TaskEmbeddingLearner):
    """A learner whose embedding of an image does not depend on the other images of the task.

    The harness then embeds each distinct test image once, for all tasks and shots.
    """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, H, W)."""

    @abstractmethod
    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        """Return logits (T, Q, n_way) from embeddings (T, S, D), labels (T, S), (T, Q, D)."""

    def embed_tasks(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed each image; see `TaskEmbeddingLearner.embed_tasks`."""
        n_tasks, n_support = support_x.shape[:2]
        n_query = query_x.shape[1]
        support_e = self.embed(support_x.flatten(0, 1)).view(n_tasks, n_support, -1)
        query_e = self.embed(query_x.flatten(0, 1)).view(n_tasks, n_query, -1)
        return support_e, query_e

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Embed, then predict from the embeddings; see `Learner.predict`."""
        support_e, query_e = self.embed_tasks(support_x, query_x)
        return self.predict_embedded(support_e, support_y, query_e)


class DrawingLearner(Learner):
    """A learner that draws random numbers for each task.

    The harness says where in the list the tasks stand, so that what is drawn for a task depends
    neither on how the list is cut into batches nor on the tasks before.
    """

    @abstractmethod
    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        """Return logits as `Learner.predict` does, of tasks number first, first + 1, and so on."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Predict the tasks at the head of the list; see `Learner.predict`."""
        return self.predict_from(0, support_x, support_y, query_x)


class MetaLearner(Learner):
    """A learner around a meta-model that can be meta-trained: pure functions of its parameters."""

    @abstractmethod
    def outer_loss(self, params: Mapping[str, Tensor], tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Adapt to each support set and return the query losses; differentiable.

        Args:
            params: parameters of the meta-model by name; gradients flow to them, and to the
                images of both sets.
            tasks: T tasks.

        Returns:
            Mean query cross-entropy of each task (T,), and query logits (T, Q, n_way).
        """


class InnerLoopLearner(MetaLearner):
    """A meta-learner that adapts its parameters to the support set by gradient steps, as MAML."""

    @abstractmethod
    def adapt(
        self, params: Mapping[str, Tensor], support_x: Tensor, support_y: Tensor
    ) -> dict[str, Tensor]:
        """Return all parameters after the inner loop on one task.

        Args:
            params: parameters of the meta-model by name.
            support_x: images (S, C, H, W).
            support_y: labels (S,).
        """


class MetricLearner(MetaLearner):
    """A meta-learner that compares features of queries and support set, as ProtoNet.

    It uses no head, and has no inner loop.
    """

    @abstractmethod
    def on_normalised_features(self, temperature: float) -> MetricLearner:
        """Return the same learner on features of Euclidean length 1.

        Args:
            temperature: divisor of the squared distances, above 0; it matters in training only.
        """


class Calibration(ABC, Generic[ConfigT]):
    """Turns a learner into one that refines itself on each test task; not part of a fit.

    One subclass, one entry point of the group `purer_bench.calibrations`. Fits and validation
    know nothing of it, so cells with and without it share them.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """raised when a change of the code changes its predictions; see `Method.version`"""
    transductive: ClassVar[bool] = False
    """whether it uses the queries of a task together; see `Learner.transductive`"""
    Config: ClassVar[type[Config]] = Config

    @classmethod
    @abstractmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Return why a kind of learner cannot be calibrated, with the remedy, or None."""

    @abstractmethod
    def wrap(
        self, learner: Learner, config: ConfigT, generator: Callable[[int], torch.Generator]
    ) -> Learner:
        """Return the calibrated learner; draws nothing yet.

        Args:
            learner: with the test settings; never changed.
            config: an instance of `Config`.
            generator: returns the CPU generator of a test task, by its place in the list.
        """
