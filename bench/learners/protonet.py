"""Prototypical networks: nearest class mean of the features, optionally of length 1."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.contract import Backbone, MetricLearner, TaskEmbeddingLearner
from bench.learners.base import FunctionalLearner, LearnerSettings, Params, count_ways
from bench.learners.centroids import centroid_logits, unit
from bench.learners.norms import embed_each_task, embed_task
from bench.nets.norm import Norm

if TYPE_CHECKING:
    from torch import Tensor


class ProtoNet(FunctionalLearner, MetricLearner, TaskEmbeddingLearner):
    """Logits are negative squared Euclidean distances to the class means of the features.

    Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, equations 1 and 2.
    Inner steps and the head play no part; any number of classes. Departure: batch norm as
    `LearnerSettings.bn` says.
    """

    def task_logits(
        self,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        n_way: int | None = None,
    ) -> Tensor:
        """Predict one task; see `FunctionalLearner.task_logits`."""
        embed = partial(self.features, params)
        support_e, query_e = embed_task(self.settings.bn, embed, support_x, query_x)
        n_way = self.n_way(support_y) if n_way is None else n_way
        return centroid_logits(support_e, support_y, query_e, n_way)

    def embed_tasks(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of many tasks; see `TaskEmbeddingLearner.embed_tasks`."""
        params = {name: p.detach() for name, p in self.net.named_parameters()}
        embed = partial(self.features, params)
        return embed_each_task(self.settings.bn, embed, support_x, query_x)

    def n_way(self, support_y: Tensor) -> int:
        """Return the number of classes in the labels; see `count_ways`."""
        return count_ways(support_y, self.settings.n_way)

    def on_normalised_features(self, temperature: float) -> NormalisedProtoNet:
        """Return the same on features of length 1; see `MetricLearner.on_normalised_features`."""
        return NormalisedProtoNet(self.net, self.settings, temperature)

    @property
    def n_parameters(self) -> int:
        """The number of parameters below the head."""
        head = sum(parameter.numel() for parameter in self.net.head.parameters())
        return super().n_parameters - head


class NormalisedProtoNet(ProtoNet):
    """Prototypical networks on features of Euclidean length 1, in training as at test.

    The means are not normalised again. After SimpleShot (Wang et al., arXiv 1911.04623), which
    normalises at test alone.

    Args:
        net: the meta-model.
        settings: rates, steps and batch norm mode, as for every learner.
        temperature: divisor of the squared distances, above 0; it matters in training only.
    """

    def __init__(self, net: Backbone, settings: LearnerSettings, temperature: float) -> None:
        super().__init__(net, settings)
        self._scale = temperature**-0.5

    def features(self, params: Params, x: Tensor, norm: Norm) -> Tensor:
        """Return features (B, n_features) of length temperature^(-1/2)."""
        return self._scale * unit(super().features(params, x, norm))
