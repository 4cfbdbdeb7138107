"""Networks that tell the classes of different teachers apart, alone or beside the ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.centroids.ensemble_centroids import (
    EnsembleCentroids,
    EnsembleConfig,
    differing_normalisation,
    signed_root,
    teachers_learner,
)
from baselines.distillation._classifier_training import ClassifierTraining
from baselines.distillation._pseudo_classifier import ClassifierSettings, Counter, standardised
from bench.contract import (
    Backbone,
    BnMode,
    Budget,
    EmbeddingLearner,
    FitContext,
    Learner,
    Method,
    ProtocolConstants,
    TaskShape,
    added,
)
from bench.learners.centroids import centroid_learner, unit
from bench.learners.classifiers import CentroidsOrRidge, named_classifier
from bench.nets.norm import Norm


class CrossTeacherConfig(ClassifierSettings):
    """Which networks are trained, and how their features are used."""

    networks: tuple[Counter, ...] = Field(("colour", "standardisation"), min_length=1)
    """of each network, what keeps it from telling teachers apart by the style of their pseudo
    images: random colours of the views (`colour`), channels of mean 0 and deviation 1 in each
    image, test images too (`standardisation`), or `nothing`. Ours."""
    other_fit: Literal["none", "distill_ensemble"] = added("none")
    """where networks start: random weights, or the student of `distill_ensemble`. Ours."""
    beside: Literal["nothing", "ensemble"] = "nothing"
    """`ensemble`: the embedding of `ensemble_centroids (tuned)` comes first"""
    weight: float = Field(1.0, gt=0)
    """length of each network's features, where the ensemble's embedding has length 1. Ours."""
    mirrored: bool = True
    """whether features are the mean over an image and its mirror image, at twice the cost; wrong
    for letters. Ours."""
    classifier: CentroidsOrRidge = "centroids"
    """as in `ensemble_centroids`"""
    ridge: float = Field(1.0, gt=0)
    """penalty of the ridge, relative to the mean square of the centred support. Ours."""


class CrossTeacher(Method[CrossTeacherConfig]):
    """Classifiers of the pseudo images of all teachers over all their classes; nearest centroids.

    What separates classes of *different* teachers is knowledge that no teacher has, and pseudo
    images hold some of it: networks of the meta-model's kind learn, from random weights, to tell
    all classes of the pool apart on pseudo images. Their root features of length 1 are the
    embedding, alone or beside that of all teachers. Inversion: DeepInversion, Yin et al., CVPR
    2020, arXiv 1912.08795. A classifier of all base classes as embedding: Tian et al., "Rethinking
    Few-Shot Image Classification: a Good Embedding Is All You Need?", ECCV 2020, arXiv 2003.11539.
    The use across teachers and all constants are ours, after a trial on validation tasks.
    """

    name = "cross_teacher"
    knowledge = "inversion"
    default_learner = "centroids"
    own_learner = True
    needs = frozenset({"bn_statistics"})
    fit_depends_on = frozenset({"n_way"})
    Config = CrossTeacherConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {},
        "plain": {"networks": ("nothing",), "mixup": False},
        "tuned": {
            "other_fit": "distill_ensemble",
            "learning_rate": 3e-3,
            "beside": "ensemble",
            "weight": 0.9,
            "classifier": "centroids+ridge",
        },
    }

    @classmethod
    def in_force(
        cls,
        config: CrossTeacherConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the number of steps, which follows from the budget's meta-iterations."""
        return {"steps": config.n_steps(budget.meta_iterations)}

    @classmethod
    def bn_of(
        cls, config: CrossTeacherConfig, learner: type[Learner], protocol: ProtocolConstants
    ) -> BnMode:
        """Return `running`: statistics are stored with the networks."""
        return "running"

    def skip(self, context: FitContext[CrossTeacherConfig]) -> str | None:
        """Skip teachers with different normalisation: all look at the same pixels."""
        return differing_normalisation(context.pool)

    def fit(self, context: FitContext[CrossTeacherConfig]) -> dict[str, Tensor]:
        """Invert each teacher, and train the networks on all pseudo images."""
        config = context.config
        start = None if config.other_fit == "none" else context.other_fit(config.other_fit)
        training = ClassifierTraining(context, tuple(context.pool), config.networks, start)
        states = training.run()
        return {
            f"{number}.{name}": value
            for number, state in enumerate(states)
            for name, value in state.items()
        }

    def learner(
        self, context: FitContext[CrossTeacherConfig], fitted: Mapping[str, Tensor]
    ) -> Learner:
        """Return the nearest-centroid learner of all networks."""
        nets = [_net(context, fitted, number) for number in range(len(context.config.networks))]
        ensemble = _ensemble(context) if context.config.beside == "ensemble" else None
        n_parameters = sum(_body_size(net) for net in nets)
        n_parameters += ensemble.n_parameters if ensemble else 0

        def embedding(images: Tensor, norm: Norm) -> Tensor:
            parts = [
                context.config.weight * _features(net, counter, images, context.config, norm)
                for net, counter in zip(nets, context.config.networks, strict=True)
            ]
            before = [unit(ensemble.embed(images))] if ensemble else []
            return torch.cat([*before, *parts], dim=1)

        classify = named_classifier(context.config.classifier, context.config.ridge)
        return centroid_learner(embedding, n_parameters, "running", classify, context.shape.n_way)


def _net(
    context: FitContext[CrossTeacherConfig], fitted: Mapping[str, Tensor], number: int
) -> Backbone:
    """Return the network of a number, frozen."""
    net = context.build_net(context.generator(f"network {number}"))
    prefix = f"{number}."
    net.load_state_dict(
        {
            name[len(prefix) :]: value.to(context.device)
            for name, value in fitted.items()
            if name.startswith(prefix)
        }
    )
    return net.requires_grad_(False).eval()


def _ensemble(context: FitContext[CrossTeacherConfig]) -> EmbeddingLearner:
    values = dict(EnsembleCentroids.presets["tuned"])
    values["views"] = "mirrored" if context.config.mirrored else "one"
    learner = teachers_learner(tuple(context.pool), EnsembleConfig(**values))
    assert isinstance(learner, EmbeddingLearner), "by stored statistics"
    return learner


def _features(
    net: Backbone, counter: Counter, images: Tensor, config: CrossTeacherConfig, norm: Norm
) -> Tensor:
    """Return a network's root features (B, d) of length 1."""
    shown = standardised(images) if counter == "standardisation" else images
    found = signed_root(net.features(shown, norm))
    if config.mirrored:
        found = found + signed_root(net.features(shown.flip(-1), norm))
    return unit(found)


def _body_size(net: Backbone) -> int:
    """Return the number of a network's parameters without its head."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("head."))
