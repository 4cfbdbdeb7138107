"""A learner: cosine similarity to the class means."""

from __future__ import annotations

from torch import Tensor

from bench.learners.base import FunctionalLearner, Params, count_ways
from bench.learners.centroids import class_means, unit
from bench.learners.norms import own_norm, query_output

SCALE = 10.0


class Cosine(FunctionalLearner):
    """Logits are ten times the cosine similarity of a query's features to each class mean.

    Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, without
    their attention. It can be meta-trained (`MetaLearner`), so every method goes with it but those
    that need an inner loop or build their own learner.
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
        bn = self.settings.bn
        support_e = unit(self.features(params, support_x, own_norm(bn)))
        query_e = query_output(
            bn, lambda x, norm: self.features(params, x, norm), support_x, query_x
        )
        n_way = count_ways(support_y) if n_way is None else n_way
        means = unit(class_means(support_e, support_y, n_way))
        return SCALE * unit(query_e) @ means.mT

    def n_way(self, support_y: Tensor) -> int:
        """Return the number of classes in the labels (T, S)."""
        return count_ways(support_y)
