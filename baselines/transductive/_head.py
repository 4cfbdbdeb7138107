"""What the transductive heads share: the calibration, and steps on embeddings (…, rows, D)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from bench.contract import Calibration, EmbeddingLearner, Learner, TaskEmbeddingLearner
from bench.contract.config import ConfigT
from bench.learners.centroids import Classify, unit


class TransductiveHead(Calibration[ConfigT]):
    """A calibration that replaces the classifier of any learner that embeds images.

    It takes the embeddings as the learner returns them: the settings of the learner's own
    classifier play no part.
    """

    transductive = True

    @classmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Refuse learners without embeddings."""
        if issubclass(learner, TaskEmbeddingLearner):
            return None
        return (
            f"{learner.__name__} classifies no embeddings; use centroids or protonet, or "
            "calibration none"
        )

    @abstractmethod
    def classifier(self, config: ConfigT) -> Classify:
        """Return the classifier of all queries of a task, batched over tasks."""

    def wrap(
        self, learner: Learner, config: ConfigT, generator: Callable[[int], torch.Generator]
    ) -> Learner:
        """Return the learner with another classifier; see `Calibration.wrap`."""
        if not isinstance(learner, TaskEmbeddingLearner):
            raise TypeError(self.refuse(type(learner)))
        classify = self.classifier(config)
        if isinstance(learner, EmbeddingLearner):
            return _OnKeptEmbeddings(learner, classify)
        return _OnTaskEmbeddings(learner, classify)


class _OnTaskEmbeddings(Learner):
    """A learner of embeddings that depend on the task, with another classifier."""

    def __init__(self, learner: TaskEmbeddingLearner, classify: Classify) -> None:
        self._learner, self._classify = learner, classify
        self.net = getattr(learner, "net", None)

    @property
    def n_parameters(self) -> int:
        return self._learner.n_parameters

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        n_way = self._learner.n_way(support_y)
        support_e, query_e = self._learner.embed_tasks(support_x, query_x)
        return self._classify(support_e, support_y, query_e, n_way)


class _OnKeptEmbeddings(EmbeddingLearner):
    """A learner of embeddings that the harness may keep, with another classifier."""

    def __init__(self, learner: EmbeddingLearner, classify: Classify) -> None:
        self._learner, self._classify = learner, classify

    @property
    def n_parameters(self) -> int:
        return self._learner.n_parameters

    def embed(self, images: Tensor) -> Tensor:
        return self._learner.embed(images)

    @torch.no_grad()
    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        n_way = self._learner.n_way(support_y)
        return self._classify(support_e, support_y, query_e, n_way)


def reduced(support_e: Tensor, query_e: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates (…, S, N), (…, Q, N) of the rows in the space that they span, N ≤ S + Q.

    Inner products, and so distances, means and lengths, are those of the embeddings; the triangular
    factor of a QR decomposition holds them. Where D is no larger, rows stay as they are.
    """
    rows = torch.cat([support_e, query_e], dim=-2)
    if rows.shape[-1] <= rows.shape[-2]:
        return support_e, query_e
    triangle = torch.linalg.qr(rows.mT, mode="r").R  # (…, N, N): rows = triangleᵀ · Qᵀ
    support, query = triangle.mT.split([support_e.shape[-2], query_e.shape[-2]], dim=-2)
    return support, query


def centred_units(support_e: Tensor, query_e: Tensor) -> tuple[Tensor, Tensor]:
    """Return support and queries less the mean of all their rows, scaled to length 1."""
    mean = torch.cat([support_e, query_e], dim=-2).mean(-2, keepdim=True)
    return unit(support_e - mean), unit(query_e - mean)
