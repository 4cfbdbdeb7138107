"""Nearest class centroids: of given embeddings, and of images through any embedding function."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import Backbone, BnMode, EmbeddingLearner, Learner, TaskEmbeddingLearner
from bench.learners.base import LearnerSettings, count_ways
from bench.learners.batching import channels_last, over_tasks
from bench.learners.norms import embed_each_task, embed_task
from bench.nets.norm import Norm, running_norm

Embedding = Callable[[Tensor, Norm], Tensor]
"""(images (B, C, H, W), norm) → embeddings (B, D)."""

Classify = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(support (…, S, D), labels (…, S), queries (…, Q, D), n_way) → logits (…, Q, n_way)."""

EPSILON = 1e-12
"""Keeps a ridge solvable where all support embeddings are equal."""

PIXELS_PER_CHUNK = 64 * 32 * 32
"""Pixels that a CPU embeds at once: 64 images of 32 px take 0.16 ms each, 256 take 0.4 ms."""


def class_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return the mean embedding of each class.

    Args:
        embeddings: (…, S, D).
        labels: (…, S) in [0, n_way), each class at least once.
        n_way: the number of classes.

    Returns:
        Means (…, n_way, D).
    """
    member = members(labels, n_way).to(embeddings.dtype).mT  # (…, n_way, S)
    return (member / member.sum(-1, keepdim=True)) @ embeddings


def members(labels: Tensor, n_way: int) -> Tensor:
    """Return which of the classes (…, S, n_way) each label (…, S) is, as booleans."""
    return labels.unsqueeze(-1) == torch.arange(n_way, device=labels.device)


def centroid_logits(support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int) -> Tensor:
    """Return the negative squared Euclidean distances to the class means.

    Args:
        support_e: embeddings (…, S, D), normalised by the caller where that is wanted.
        support_y: labels (…, S) in [0, n_way), each class at least once.
        query_e: embeddings (…, Q, D).
        n_way: the number of classes.

    Returns:
        Logits (…, Q, n_way).
    """
    means = class_means(support_e, support_y, n_way)
    inner = query_e @ means.transpose(-1, -2)  # (…, Q, n_way)
    squares = query_e.square().sum(-1).unsqueeze(-1) + means.square().sum(-1).unsqueeze(-2)
    return 2 * inner - squares


def ridge_logits(
    support_e: Tensor, support_y: Tensor, query_e: Tensor, n_way: int, penalty: float
) -> Tensor:
    """Return the outputs of a ridge regression on one-hot support labels.

    Embeddings are centred on the support's mean, labels on theirs, and the problem is solved
    among the S support images, not in the D dimensions.

    Args:
        support_e: embeddings (…, S, D).
        support_y: labels (…, S) in [0, n_way).
        query_e: embeddings (…, Q, D).
        n_way: the number of classes.
        penalty: relative to the mean square of the centred support embeddings; above 0.

    Returns:
        Logits (…, Q, n_way).
    """
    mean = support_e.mean(-2, keepdim=True)
    support, query = support_e - mean, query_e - mean
    target = F.one_hot(support_y, n_way).to(support.dtype)
    target = target - target.mean(-2, keepdim=True)
    gram = support @ support.mT  # (…, S, S)
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + (penalty * scale + EPSILON) * eye, target)
    return query @ support.mT @ weights


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances (…, A, B) between rows (…, A, D) and (…, B, D)."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * a @ b.mT).clamp_min(0)


def unit(embeddings: Tensor) -> Tensor:
    """Return embeddings (…, D) scaled to Euclidean length 1; all-zero ones stay zero."""
    return F.normalize(embeddings, dim=-1)


class FixedCentroids(EmbeddingLearner):
    """Nearest class centroid of embeddings that use stored BN statistics.

    Args:
        embedding: the embedding function.
        n_parameters: what it uses.
        classify: what is made of the embeddings.
        n_way: see `LearnerSettings`.
    """

    def __init__(
        self,
        embedding: Embedding,
        n_parameters: int,
        classify: Classify = centroid_logits,
        n_way: int | None = None,
    ) -> None:
        self._embedding, self._n_parameters = embedding, n_parameters
        self._classify, self._n_way = classify, n_way

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self._n_parameters

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, H, W); on a CPU a few at a time."""
        if images.device.type != "cpu":
            return self._embedding(images, running_norm)
        size = max(1, PIXELS_PER_CHUNK // (images.shape[-1] * images.shape[-2]))
        parts = [self._embedding(channels_last(x), running_norm) for x in images.split(size)]
        return torch.cat(parts)

    @torch.no_grad()
    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        """Return logits (T, Q, n_way); see `EmbeddingLearner.predict_embedded`.

        Raises:
            BenchError: a class has no support image.
        """
        return self._classify(support_e, support_y, query_e, self.n_way(support_y))

    def n_way(self, support_y: Tensor) -> int:
        """Return the number of classes in the labels; see `count_ways`."""
        return count_ways(support_y, self._n_way)


class BatchCentroids(TaskEmbeddingLearner):
    """Nearest class centroid of embeddings that depend on the other images of the task.

    Args:
        embedding: the embedding function.
        n_parameters: what it uses.
        bn: `transductive` or `support`; see `LearnerSettings.bn`.
        classify: what is made of the embeddings.
        n_way: see `LearnerSettings`.
    """

    def __init__(
        self,
        embedding: Embedding,
        n_parameters: int,
        bn: BnMode,
        classify: Classify = centroid_logits,
        n_way: int | None = None,
    ) -> None:
        self._embedding, self._n_parameters = embedding, n_parameters
        self._bn: BnMode = bn
        self._classify, self._n_way = classify, n_way

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self._n_parameters

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return logits (T, Q, n_way); see `Learner.predict`.

        Raises:
            BenchError: a class has no support image.
        """
        n_way = self.n_way(support_y)

        def one(support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
            support_e, query_e = embed_task(self._bn, self._embedding, support_x, query_x)
            return self._classify(support_e, support_y, query_e, n_way)

        return over_tasks(one, support_x, support_y, query_x)

    def embed_tasks(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of many tasks; see `TaskEmbeddingLearner.embed_tasks`."""
        return embed_each_task(self._bn, self._embedding, support_x, query_x)

    def n_way(self, support_y: Tensor) -> int:
        """Return the number of classes in the labels; see `count_ways`."""
        return count_ways(support_y, self._n_way)


def centroid_learner(
    embedding: Embedding,
    n_parameters: int,
    bn: BnMode,
    classify: Classify = centroid_logits,
    n_way: int | None = None,
) -> Learner:
    """Return the nearest-centroid learner of an embedding, or one that classifies otherwise.

    With stored statistics its embeddings can be kept (`EmbeddingLearner`).
    """
    if bn == "running":
        return FixedCentroids(embedding, n_parameters, classify, n_way)
    return BatchCentroids(embedding, n_parameters, bn, classify, n_way)


def normalised_centroids(net: Backbone, settings: LearnerSettings) -> Learner:
    """Return the nearest-centroid learner of a network's features of length 1; see `Centroids`."""
    head = sum(parameter.numel() for parameter in net.head.parameters())
    total = sum(parameter.numel() for parameter in net.parameters())
    return centroid_learner(
        lambda x, norm: unit(net.features(x, norm)),
        total - head,
        settings.bn,
        n_way=settings.n_way,
    )


class Centroids(TaskEmbeddingLearner):
    """L2-normalised features, nearest class centroid (mean of the normalised features).

    Logits are negative squared Euclidean distances; the centroids are not normalised again.
    Source: SimpleShot (Wang et al., arXiv 1911.04623), its "L2N" variant. Constructing it gives
    an `EmbeddingLearner` where the settings ask for stored BN statistics.
    """

    def __new__(cls, net: Backbone, settings: LearnerSettings) -> Learner:  # type: ignore[misc]  # see above
        """Return the learner around a backbone."""
        return normalised_centroids(net, settings)
