"""TGR: groups of unlike teachers, whose gradients are made to agree within each group."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.distillation._losses import distillation_loss
from baselines.recovery._generated_tasks import (
    GeneratedTasks,
    GeneratorConfig,
    GeneratorMethod,
    recovery_losses,
)
from baselines.recovery._gradient_variance import displaced_gradient
from baselines.recovery._recovered_tasks import Params, student_logits
from baselines.recovery._task_groups import Grouping, Groups, feature_similarity, similar_groups
from bench.contract import Backbone, FitContext, Pool, Teacher
from bench.training.initialisation import initial_net
from bench.training.meta_training import meta_train

FIRST = 100
"""Teachers that the released scripts for mixed pools group, whatever the pool has (hazard H23)."""


class TgrConfig(GeneratorConfig):
    """Constants; those of the meta-generator are FREE's, see `GeneratorConfig`."""

    images_per_class: int = Field(30, ge=1)
    """images of each class that a visit recovers from each teacher. Released; at least k_shot + 1
    are made."""
    bn_weight: float = Field(1.0, ge=0)
    """factor of the distance to the teacher's batch norm statistics. Released."""
    patience: int = Field(4, ge=1)
    """meta-iterations without a better pseudo-query accuracy until the next visit. Released."""
    memory_per_class: int = Field(600, ge=2)
    """images of a class that the task memory keeps. Released: 20 sets of 30."""
    grouping: Grouping = "unlike"
    """which teachers a visit takes together: those of a group of `unlike` ones (paper), of `alike`
    ones, or of a `random` group"""
    n_groups: int = Field(5, ge=1)
    """groups of teachers; at most half as many as there are teachers. Released: 5 of 100."""
    similarity_images: int = Field(256, ge=4)
    """pseudo images, about, that similarity of teachers is measured on, equally many of each class
    of each teacher. Ours."""
    similarity_scope: Literal["all", "first_100"] = "all"
    """the teachers that are grouped and visited: `all`, or the `first_100` of the pool, as the
    released scripts for pools of several architectures or data sets do (hazard H23)"""
    displacement: float = Field(1e-3, ge=0)
    """length of the displacement against the gradients' mean, and so the weight of their variance
    in the loss; 0 is none. Released."""


class Tgr(GeneratorMethod[TgrConfig]):
    """Task groupings regularisation: teachers that differ are grouped, their gradients aligned.

    Wei et al., "Task Groupings Regularization: Data-Free Meta-Learning with Heterogeneous
    Pre-trained Models", ICML 2024, arXiv 2405.16560.

    Teachers are clustered by dissimilarity, so that unlike ones share a group. A visit takes four
    teachers of a random group, recovers images of their classes, and steps on the mean of their
    losses (cross-entropy and distillation), each met at weights displaced against the mean of the
    teachers' gradients and differentiated through: a penalty on the variance of these gradients.
    All images go to a memory; between visits, the meta-model is trained on tasks that mix classes
    from the memory.

    As in the released code: spectral clustering with the dissimilarity as affinity, the number of
    groups, the loss, the displacement, the images of a visit, the weight of the batch norm term,
    the plateau that triggers the next visit. Our reading: similarity is linear CKA of the teachers'
    features on pseudo images; published is a Fisher embedding by a ResNet-34 trained on ImageNet,
    which is knowledge from outside the pool, and for miniImageNet of its test classes. Departures:
    images come from FREE's meta-generator, without augmentation (published: a newly drawn generator
    and 200 steps for each teacher); a visit's teachers are distinct (drawn with replacement);
    meta-batch and inner steps are the protocol's; visits have an Adam state of their own.
    """

    name = "tgr"
    Config = TgrConfig
    presets: ClassVar = {
        "released": {},
        "as_published": {"kd": "as_published", "similarity_scope": "first_100"},
    }

    def notes(self, context: FitContext[TgrConfig]) -> tuple[str, ...]:
        """Name the teachers that a similarity cut to the first 100 leaves out."""
        left = len(context.pool) - len(scope_of(context.pool, context.config))
        if not left:
            return ()
        return (f"similarity_scope=first_100: the last {left} teachers were never visited",)

    def fit(self, context: FitContext[TgrConfig]) -> dict[str, Tensor]:
        """Group the teachers, recover images, meta-train, and return the meta-model's state."""
        net = initial_net(context, context.config.initialisation)
        return meta_train(context, net, GroupedTasks(context, net))


def scope_of(pool: Pool, config: TgrConfig) -> tuple[Teacher, ...]:
    """Return the teachers that are grouped and visited."""
    return tuple(pool)[: FIRST if config.similarity_scope == "first_100" else None]


class GroupedTasks(GeneratedTasks[TgrConfig]):
    """The visits of TGR; see `Tgr`.

    Attributes:
        groups: of each group the numbers of its teachers; None before they are found.
    """

    def __init__(self, context: FitContext[TgrConfig], net: Backbone) -> None:
        super().__init__(context, net)
        self.groups: Groups | None = None
        self._scope = scope_of(context.pool, context.config)
        self._shown: list[Tensor] = []
        self.streams["groups"] = context.generator("groups")

    def visit(self, iteration: int) -> Generator[None, None, dict[str, Tensor]]:
        """Recover images of a group's teachers, step on the regularised loss of all of them."""
        yield from self.warm_up()
        if self.groups is None:
            yield from self._recover_of_each()
            self.groups = self._found_groups()
        teachers = self._drawn_teachers(self.groups)
        adapted = self.recover(teachers)
        losses = [
            self._loss(self.labels(teacher), *self.remember(teacher, one))
            for teacher, one in zip(teachers, adapted, strict=True)
        ]
        found = displaced_gradient(self.parameters, losses, self.config.displacement)
        self.apply(found.gradient)
        return {
            **recovery_losses(adapted),
            "distillation": torch.stack(found.losses).mean(),
            "gradient_variance": found.variance,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue bit by bit."""
        return {**super().state_dict(), "groups": self.groups, "shown": list(self._shown)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state)
        self.groups = state["groups"]
        self._shown = [images.to(self.context.device) for images in state["shown"]]

    @property
    def _n_groups(self) -> int:
        return max(1, min(self.config.n_groups, len(self._scope) // 2))

    def _recover_of_each(self) -> Iterator[None]:
        """Recover the images that similarity is measured on, where it decides the groups."""
        if self._n_groups == 1 or self.config.grouping == "random":
            return
        classes = sum(len(teacher.class_ids) for teacher in self._scope)
        each = max(1, min(self._images_per_class, self.config.similarity_images // classes))
        while len(self._shown) < len(self._scope):
            done = len(self._shown)
            teachers = self._scope[done : done + self.config.teachers_per_visit]
            for one in self.recover(teachers):
                by_class = one.pixels.unflatten(0, (-1, self._images_per_class))
                self._shown.append(by_class[:, :each].flatten(0, 1))
            yield

    def _found_groups(self) -> Groups:
        """Return the groups, and note them in the record."""
        n, config, log = len(self._scope), self.config, self.context.log
        similarity = np.eye(n)
        if self._shown:
            images = self.scale.normalised(torch.cat(self._shown))
            similarity = feature_similarity(self._scope, images)
            log.count("teacher_forward_images", len(images) * n)
            self._shown = []
        groups = similar_groups(similarity, config.grouping, self._n_groups, self.streams["groups"])
        names = [[self._scope[i].name for i in group] for group in groups]
        log.extra("task_groups", names)
        return groups

    def _drawn_teachers(self, groups: Groups) -> list[Teacher]:
        """Return distinct teachers of a random group."""
        generator = self.streams["groups"]
        group = groups[int(torch.randint(len(groups), (), generator=generator))]
        order = torch.randperm(len(group), generator=generator).tolist()
        return [self._scope[group[i]] for i in order[: self.config.teachers_per_visit]]

    def _loss(self, labels: Tensor, images: Tensor, answers: Tensor) -> Callable[[Params], Tensor]:
        def loss_of(params: Params) -> Tensor:
            logits = student_logits(self.net, params, images, answers.shape[1])
            distillation = distillation_loss(logits, answers, self.config.kd)
            return F.cross_entropy(logits, labels) + distillation

        return loss_of
