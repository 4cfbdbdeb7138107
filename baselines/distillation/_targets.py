"""The targets of distillation: the teachers' features and predictions on views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from baselines.centroids.ensemble_centroids import EnsembleConfig, part_width, teachers_learner
from baselines.distillation._pseudo_views import CHUNK, ViewSettings
from bench.contract import EmbeddingLearner, FitLog, Teacher
from bench.nets.norm import running_norm


class TargetSettings(ViewSettings):
    """What teachers are asked for."""

    temperature: float = Field(2.0, gt=0)
    """divisor of logits before soft labels. Ours."""
    mirrored: bool = True
    """whether a teacher's answer is the mean over a view and its mirror image, either of which the
    student may be shown; at twice the cost; wrong for letters. Ours."""
    accuracy_power: float = Field(2.0, ge=0)
    """a teacher's features count as much as its held-out accuracy to this power. As in the preset
    `tuned` of `ensemble_centroids`."""


@dataclass(frozen=True)
class TeacherTargets:
    """Views (N, 3, H, W), and the teachers' answers: features (N, D), logits (N, C) if asked."""

    views: Tensor
    features: Tensor
    logits: Tensor | None

    def __len__(self) -> int:
        return len(self.views)


class TeacherEnsemble:
    """Asks some teachers about views.

    Their features are those that serve `ensemble_centroids` best, its preset `tuned`: root
    features, logits and root soft labels, of length 1 each.

    Args:
        teachers: whose answers lie side by side.
        settings: what is asked for.
        with_logits: whether to ask for logits as well, at the cost of another pass.
        log: counts the images that teachers see.
        embedding: an embedding of theirs, and its dimensions, in place of those features.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        settings: TargetSettings,
        with_logits: bool,
        log: FitLog,
        embedding: tuple[EmbeddingLearner, int] | None = None,
    ) -> None:
        self.teachers, self._with_logits, self._log = tuple(teachers), with_logits, log
        self._views = 2 if settings.mirrored else 1
        self._learner, self._width = embedding or self._of_teachers(settings)

    def _of_teachers(self, settings: TargetSettings) -> tuple[EmbeddingLearner, int]:
        """Return the embedding of `ensemble_centroids (tuned)`, and its dimensions."""
        parts = EnsembleConfig(
            parts="features+logits+soft_labels",
            root=True,
            temperature=settings.temperature,
            views="mirrored" if settings.mirrored else "one",
            accuracy_power=settings.accuracy_power,
        )
        learner = teachers_learner(self.teachers, parts)
        assert isinstance(learner, EmbeddingLearner), "by stored statistics"
        return learner, sum(part_width(teacher, parts) for teacher in self.teachers)

    @property
    def widths(self) -> tuple[int, int]:
        """D and C: the dimensions of the features, and the logits of all teachers."""
        return self._width, sum(self.classes)

    @property
    def classes(self) -> list[int]:
        """How many logits each teacher has."""
        return [teacher.net.head.out_features for teacher in self.teachers]

    @torch.no_grad()
    def targets(self, views: Tensor, again: bool = False) -> TeacherTargets:
        """Return the teachers' answers to views (N, 3, H, W); `again` counts none of them."""
        asked = 0 if again else len(views) * len(self.teachers)
        self._log.count("teacher_forward_images", asked * (self._views + self._with_logits))
        parts = views.split(CHUNK)
        features = torch.cat([self._learner.embed(part) for part in parts])
        logits = None
        if self._with_logits:
            logits = torch.cat([self._logits(part) for part in views.split(CHUNK // 8)])
        return TeacherTargets(views, features, logits)

    def _logits(self, views: Tensor) -> Tensor:
        return torch.cat([teacher.net(views, running_norm) for teacher in self.teachers], dim=1)
