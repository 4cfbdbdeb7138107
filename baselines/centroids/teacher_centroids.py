"""Nearest class centroid on the features of one teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from baselines.centroids.ensemble_centroids import (
    BN_MODES,
    EnsembleConfig,
    Parts,
    lacking_batch_norm,
    own_statistics,
    teachers_learner,
)
from bench.contract import (
    BnMode,
    FitContext,
    Learner,
    Method,
    ProtocolConstants,
    Teacher,
    added,
)
from bench.errors import BenchError
from bench.training.initialisation import best_teacher

if TYPE_CHECKING:
    from torch import Tensor


class TeacherConfig(EnsembleConfig):
    """Which teacher, and how it is used."""

    teacher: Literal["best"] | int = "best"
    """`best` by held-out accuracy (the first of equals), or a number counted from 0"""
    parts: Parts = added("features")
    root: bool = added(False)
    temperature: float = added(2.0, gt=0)


class TeacherCentroids(Method[TeacherConfig]):
    """L2-normalised features of one teacher of any architecture, nearest class centroid.

    SimpleShot (Wang et al., arXiv 1911.04623), "L2N". Departure: the feature extractor is a
    teacher of the pool, trained on a few classes only.
    """

    name = "teacher_centroids"
    knowledge = "features"
    default_learner = "centroids"
    own_learner = True
    Config = TeacherConfig

    @classmethod
    def bn_of(
        cls, config: TeacherConfig, learner: type[Learner], protocol: ProtocolConstants
    ) -> BnMode:
        """Return the mode that the config asks for."""
        return BN_MODES[config.bn]

    def skip(self, context: FitContext[TeacherConfig]) -> str | None:
        """Skip teachers without batch norm where batch statistics are used."""
        return lacking_batch_norm((_chosen(context),), context.config)

    def fit(self, context: FitContext[TeacherConfig]) -> dict[str, Tensor]:
        """Return an empty fit, or the teacher's statistics where the config uses them.

        Raises:
            BenchError: the pool has no teacher of that number.
        """
        return own_statistics(context, (_chosen(context),))

    def learner(self, context: FitContext[TeacherConfig], fitted: Mapping[str, Tensor]) -> Learner:
        """Return the nearest-centroid learner of the teacher."""
        n_way = context.shape.n_way
        return teachers_learner((_chosen(context),), context.config, fitted, n_way)


def _chosen(context: FitContext[TeacherConfig]) -> Teacher:
    wanted = context.config.teacher
    if wanted == "best":
        return best_teacher(context.pool)
    if not 0 <= wanted < len(context.pool):
        raise BenchError(
            f"teacher {wanted} is not among the {len(context.pool)} of the pool; "
            f"choose 0 to {len(context.pool) - 1}, or best"
        )
    return context.pool[wanted]
