"""A classifier of all pseudo classes, trained with the meta-model beside the pseudo tasks. Ours."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import Backbone, FitContext, MetaLearner, TaskBatch
from bench.learners.batching import channels_last
from bench.learners.norms import task_batch_norm
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset


class PseudoClasses:
    """A linear head over all classes of the pool, on the features of the meta-model.

    Each loss is met on newly drawn pseudo images, changed as those of pseudo tasks are. The head
    starts at zero, so that it moves no feature before it has learned something, and has an
    optimiser of its own.

    Args:
        context: what the method was given.
        dataset: the pseudo images.
        net: the meta-model; its own head plays no part.
    """

    def __init__(
        self, context: FitContext[PurerConfig], dataset: DynamicDataset, net: Backbone
    ) -> None:
        self._config, self._dataset, self._net = context.config, dataset, net
        self._draw = context.generator("pseudo class images")
        n_classes = len(dataset.class_ids)
        weight = torch.zeros((n_classes, net.n_features), device=context.device)
        bias = torch.zeros(n_classes, device=context.device)
        self.head = {"weight": weight.requires_grad_(), "bias": bias.requires_grad_()}
        lr = context.config.class_head_lr
        self._optimiser = torch.optim.Adam(self.head.values(), lr=lr)
        self.last = weight.new_zeros(())

    def loss(self) -> Tensor:
        """Return the cross-entropy over all classes of some pseudo images, 0-d, differentiable."""
        images = self._dataset.images.detach()
        n_classes, per_class = images.shape[:2]
        size = (self._config.class_batch,)
        rows = torch.randint(n_classes * per_class, size, generator=self._draw).to(images.device)
        shown = self._config.augmentation(images.flatten(0, 1)[rows], self._draw)
        features = self._net.features(channels_last(shown), task_batch_norm)
        logits = F.linear(features, self.head["weight"], self.head["bias"])
        loss = F.cross_entropy(logits, rows // per_class)
        self.last = loss.detach()
        return loss

    def step(self) -> None:
        """Take the head's step along the gradients of the last loss."""
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what is needed to continue bit by bit."""
        return {
            "head": {name: value.detach().clone() for name, value in self.head.items()},
            "optimiser": deepcopy(self._optimiser.state_dict()),
            "draw": self._draw.get_state(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for name, value in self.head.items():
            value.copy_(state["head"][name])
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self._draw.set_state(state["draw"].cpu())


class ClassifyingLearner(MetaLearner):
    """A learner whose outer loss has a term of pseudo classes beside each task's.

    Args:
        learner: the cell's learner around the meta-model.
        classes: the term.
        task_weight: factor of a task's loss; at 0 tasks are only scored.
        class_weight: factor of the term.
    """

    def __init__(
        self, learner: MetaLearner, classes: PseudoClasses, task_weight: float, class_weight: float
    ) -> None:
        self._learner, self._classes = learner, classes
        self._task_weight, self._class_weight = task_weight, class_weight

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self._learner.n_parameters

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Predict as the learner alone."""
        return self._learner.predict(support_x, support_y, query_x)

    def outer_loss(self, params: Mapping[str, Tensor], tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Return losses (T,) and query logits; see `MetaLearner.outer_loss`.

        The term is met at the meta-model's own parameters, which `params` are in meta-training.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._task_weight > 0):
            losses, logits = self._learner.outer_loss(params, tasks)
        return self._task_weight * losses + self._class_weight * self._classes.loss(), logits
