"""One student that reproduces the features of the whole ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from baselines.distillation._student_training import (
    Distillation,
    DistillationConfig,
    StudentTraining,
)
from baselines.distillation.cross_teacher import CrossTeacher, CrossTeacherConfig
from bench.contract import EmbeddingLearner, FitContext, Learner, added
from bench.learners.centroids import Centroids, centroid_learner, unit
from bench.learners.classifiers import CentroidsOrRidge, named_classifier
from bench.nets.norm import Norm

FURTHER = "cross_teacher"
"""The method whose embedding a student may learn, and the preset of it."""
PRESET = "tuned"


class DistillEnsembleConfig(DistillationConfig):
    """As for every student, and what it learns, and how the learner `centroids` uses it."""

    other_fit: Literal["none", "cross_teacher"] = added("none")
    """whose embedding the student learns: that of `ensemble_centroids (tuned)`, or that of
    `cross_teacher (tuned)`, which has two networks beside the teachers. Ours."""
    views: Literal["one", "mirrored"] = added("one")
    """`mirrored`: `centroids` takes the mean of the features of an image and its mirror image, at
    twice the cost; wrong for letters. Ours."""
    classifier: CentroidsOrRidge = added("centroids")
    """of the learner `centroids`, as in `ensemble_centroids`"""
    ridge: float = added(1.0, gt=0)
    """penalty of the ridge, relative to the mean square of the centred support. Ours."""


class DistillEnsemble(Distillation[DistillEnsembleConfig]):
    """One student distilled from all teachers at once, on their pseudo images.

    The student approximates the features of `ensemble_centroids` at the cost of one network. Each
    view of a pseudo image, whichever teacher it was inverted from, is given to *all* teachers, and
    the student learns the features of the ensemble's preset `tuned`. It matches them through a
    linear map, and their similarities directly, in the space in which centroids are compared (Tung
    and Mori, ICCV 2019, arXiv 1907.09682; Park et al., CVPR 2019, arXiv 1904.05068; see
    `_losses.py`). The teachers' outputs are computed once per view and used several times.
    Inversion: DeepInversion, Yin et al., CVPR 2020, arXiv 1912.08795. One network distilled from a
    pool of extractors, on real images of several domains: URL (Li et al., "Universal Representation
    Learning from Multiple Domains for Few-shot Classification", ICCV 2021, arXiv 2103.13841). The
    use without data, on teachers of different classes, is ours, and so are all constants, chosen on
    validation tasks of CIFAR-FS.

    The preset `tuned` has a second round: networks that start from this student learn to tell the
    classes of different teachers apart (`cross_teacher (tuned)`), and a new student learns the
    embedding of teachers and networks together.

    Departures from data-free distillation as published: see `SingleDfkd`; soft labels are part of
    the features and have no loss of their own.
    """

    name = "distill_ensemble"
    Config = DistillEnsembleConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {},
        "tuned": {"other_fit": FURTHER, "views": "mirrored", "classifier": "centroids+ridge"},
    }

    def fit(self, context: FitContext[DistillEnsembleConfig]) -> dict[str, Tensor]:
        """Invert each teacher and train one student on all of them."""
        teachers = self.teachers_used(context)
        embedding = None if context.config.other_fit == "none" else _further_embedding(context)
        return StudentTraining(context, teachers, [range(len(teachers))], embedding).run()[0]

    def learner(
        self, context: FitContext[DistillEnsembleConfig], fitted: Mapping[str, Tensor]
    ) -> Learner:
        """Return the cell's learner, `centroids` with the config's views and classifier."""
        config = context.config
        plain = (config.views, config.classifier) == ("one", "centroids")
        learner = super().learner(context, fitted)
        if plain or not issubclass(context.learner_class, Centroids):
            return learner
        assert isinstance(learner, EmbeddingLearner), "by stored statistics"
        classify = named_classifier(config.classifier, config.ridge)

        def embedding(images: Tensor, norm: Norm) -> Tensor:
            found = learner.embed(images)
            if config.views == "mirrored":
                found = found + learner.embed(images.flip(-1))
            return unit(found)

        n_way = context.shape.n_way
        return centroid_learner(embedding, learner.n_parameters, "running", classify, n_way)


def _further_embedding(
    context: FitContext[DistillEnsembleConfig],
) -> tuple[EmbeddingLearner, int]:
    """Return the embedding of `cross_teacher (tuned)` on the pool, and its dimensions."""
    fitted = context.other_fit(FURTHER, PRESET)
    config = CrossTeacherConfig(**CrossTeacher.presets[PRESET], mirrored=context.config.mirrored)
    given = cast("FitContext[CrossTeacherConfig]", replace(context, config=config))  # type: ignore[arg-type]
    learner = CrossTeacher().learner(given, fitted)
    assert isinstance(learner, EmbeddingLearner), "by stored statistics"
    size = context.net.image_size
    width = learner.embed(Tensor(1, 3, size, size).zero_().to(context.device)).shape[1]
    return learner, width
