"""PURER: meta-learning from a pool of teachers by episode curriculum inversion (ECI)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from bench.contract import (
    Backbone,
    Budget,
    FitContext,
    Learner,
    MetaLearner,
    Method,
    MetricLearner,
    ProtocolConstants,
    TaskShape,
)
from bench.nets.norm import norm_parameters
from bench.training.initialisation import initial_net, net_at, zero_head
from bench.training.meta_training import meta_train
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset
from purer.presets import ABLATION, COMPARED, TUNED, TUNED_PROTONET
from purer.pseudo_classes import ClassifyingLearner, PseudoClasses
from purer.pseudo_tasks import PseudoTasks

OTHER_FITS = {"distill_ensemble": "", "cross_teacher": "0."}
"""The methods whose fit may be the start, and the prefix of the network that is taken of it."""


class Purer(Method[PurerConfig]):
    """PURER's episode curriculum inversion (ECI): meta-training on inverted pseudo tasks.

    Hu et al., "Architecture, Dataset and Model-Scale Agnostic Data-free Meta-Learning",
    CVPR 2023, arXiv 2303.11183.

    A dynamic data set holds a few pseudo images of each class of the pool. In each meta-iteration
    its pixels take one step that lowers the inversion loss of all teachers; then the learner takes
    one outer step on pseudo tasks drawn from it. When the accuracy on pseudo tasks no longer rises,
    a gradient switch makes one pixel step adversarial: that step also raises the learner's outer
    loss.

    As in the released code: every loss term and constant, the order of the steps, the switch, the
    initialisation, the adversarial gradient through queries and support. Further choices of the
    released code are settings of the protocol: cumulative teacher weights, mismatched labels, a
    fixed split of the pseudo images, some teachers drawn for each pixel step, selection of the
    checkpoint on test tasks.

    Departures: pixel shifts, tasks and adversarial tasks are drawn from separate streams; the
    number of classes comes from the teachers, not from the training files; the switch's warm-up
    scales with the meta-iterations (4,000 of 60,000) unless given. The calibration at test time
    (ICFIL) is not part of the fit. Teachers without batch norm are inverted without the statistics
    term. The images of all teachers must be normalised in the same way. If image sizes differ, all
    pseudo images have the meta-model's size and are resized for each teacher.
    """

    name = "purer"
    knowledge = "inversion"
    learner_needs = MetaLearner
    fit_depends_on = frozenset({"n_way", "k_shot", "learner"})
    validates = True
    Config = PurerConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {},
        "tuned": TUNED,
        **ABLATION,
        **COMPARED,
    }
    learner_presets: ClassVar = {("tuned", MetricLearner): TUNED_PROTONET}

    @classmethod
    def in_force(
        cls,
        config: PurerConfig,
        shape: TaskShape,
        budget: Budget,
        protocol: ProtocolConstants,
    ) -> Mapping[str, Any]:
        """Return the counts that follow from the budget and the task shape."""
        total = config.total_iterations(budget)
        return {
            "meta_iterations": total,
            "adversarial_start": config.first_adversarial_iteration(total),
            "pseudo_images_per_class": config.images_per_class(
                shape, protocol.pseudo_images_per_class
            ),
        }

    def skip(self, context: FitContext[PurerConfig]) -> str | None:
        """Skip pools with different normalisation, too few classes, or an unsuitable learner."""
        if len({(t.mean, t.std) for t in context.pool}) > 1:
            return "the teachers' images are normalised differently"
        if context.pool.n_classes < context.shape.n_way:
            return (
                f"the pool knows {context.pool.n_classes} classes, n_way is {context.shape.n_way}"
            )
        normalises = context.config.feature_normalisation != "none"
        if normalises and not issubclass(context.learner_class, MetricLearner):
            return (
                "feature_normalisation needs a metric learner, as protonet, and "
                f"{context.learner} is none; set it to none"
            )
        return None

    def notes(self, context: FitContext[PurerConfig]) -> tuple[str, ...]:
        """Name the teachers that were inverted without the BN statistics term."""
        without = [t for t in context.pool if not _has_batch_norm(t.net)]
        if not without:
            return ()
        names = ", ".join(f"{t.name} ({t.spec.architecture})" for t in without)
        return (f"inverted without a term of BN statistics, for want of batch norm: {names}",)

    def fit(self, context: FitContext[PurerConfig]) -> dict[str, Tensor]:
        """Invert and meta-train together; return the meta-model's state.

        Raises:
            BenchError: the config leaves no pseudo image for the queries.
        """
        context = _with_own_constants(context)
        dataset = DynamicDataset(
            context.pool,
            context.config.images_per_class(
                context.shape, context.protocol.pseudo_images_per_class
            ),
            context.generator("pseudo images"),
            context.device,
            context.protocol.label_order,
            context.net.image_size,
        )
        net = _starting_net(context)
        learner, classes = context.training_learner(net), None
        if context.config.class_weight:
            classes = PseudoClasses(context, dataset, net)
            context = _classifying(context, classes)
        source = PseudoTasks(context, dataset, net, learner, classes)
        trained = norm_parameters(net) if context.config.trained == "norms" else None
        return meta_train(context, net, source, trained)

    def learner(self, context: FitContext[PurerConfig], fitted: Mapping[str, Tensor]) -> Learner:
        """Return the cell's learner around the fitted meta-model."""
        return _with_own_constants(context).make_learner(fitted)


def _has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


def _starting_net(context: FitContext[PurerConfig]) -> Backbone:
    """Return the initialised meta-model."""
    start = context.config.other_fit
    if start != "none":
        fitted, prefix = context.other_fit(start), OTHER_FITS[start]
        state = {k[len(prefix) :]: v for k, v in fitted.items() if k.startswith(prefix)}
        net = net_at(context, state, "average")
    else:
        net = initial_net(context, context.protocol.initialisation)
    if context.config.zero_head:
        zero_head(net)
    if context.config.feature_scale != 1:
        net.scale_features(context.config.feature_scale)
    return net


def _with_own_constants(context: FitContext[PurerConfig]) -> FitContext[PurerConfig]:
    """Return the context with the constants that the config overrides."""
    config, budget, protocol = context.config, context.budget, context.protocol
    iterations = config.total_iterations(budget)
    own = {"outer_lr": config.outer_lr, "initialisation": config.initialisation}
    own = {k: value for k, value in own.items() if value is not None}
    return replace(
        context,
        budget=budget.model_copy(update={"meta_iterations": iterations}),
        protocol=protocol.model_copy(update=own),
        training_learner=lambda net: _normalised(context.training_learner(net), config),
        make_learner=lambda state, bn=None: _normalised(context.make_learner(state, bn), config),
    )


def _classifying(
    context: FitContext[PurerConfig], classes: PseudoClasses
) -> FitContext[PurerConfig]:
    """Return the context with a learner whose outer loss has the classification loss as well."""
    config, make = context.config, context.training_learner

    def training_learner(net: Backbone) -> MetaLearner:
        return ClassifyingLearner(make(net), classes, config.task_weight, config.class_weight)

    return replace(context, training_learner=training_learner)


AnyLearner = TypeVar("AnyLearner", bound=Learner)


def _normalised(learner: AnyLearner, config: PurerConfig) -> AnyLearner | MetricLearner:
    """Return the learner with the configured normalisation of features."""
    if config.feature_normalisation == "none" or not isinstance(learner, MetricLearner):
        return learner
    return learner.on_normalised_features(config.temperature)
