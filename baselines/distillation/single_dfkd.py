"""Data-free knowledge distillation of one teacher into the meta-model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from baselines.distillation._student_training import (
    Distillation,
    DistillationConfig,
    StudentTraining,
)
from bench.contract import FitContext, Teacher
from bench.training.initialisation import best_teacher

if TYPE_CHECKING:
    from torch import Tensor


class SingleConfig(DistillationConfig):
    """As for the ensemble, but with soft labels, as is usual for one teacher, and fewer steps."""

    soft_label_weight: float = Field(1.0, ge=0)
    """factor of the divergence from the teacher's soft labels. Ours."""
    steps_per_meta_iteration: int = Field(5, ge=1)
    """steps for each of the budget's meta-iterations, where `steps` is None. Ours: one teacher has
    less to teach than all."""


class SingleDfkd(Distillation[SingleConfig]):
    """A student distilled from the most accurate teacher, on that teacher's pseudo images.

    Data-free knowledge distillation: Chen et al., "Data-Free Learning of Student Networks" (DAFL),
    ICCV 2019, arXiv 1904.01186; Yin et al., "Dreaming to Distill" (DeepInversion), CVPR 2020, arXiv
    1912.08795; Fang et al., "Contrastive Model Inversion for Data-Free Knowledge Distillation"
    (CMI), IJCAI 2021, arXiv 2105.08584. Soft labels at a temperature: Hinton et al., arXiv
    1503.02531. The row shows what the knowledge of one teacher is worth in the meta-model, for any
    architecture of the teacher.

    Departures: pixels are inverted as in DeepInversion, once, before the student is trained (no
    generator, no memory bank, no adversarial term), from dead leaves instead of noise; views are
    shifted, mirrored and mixed; the student also matches features and similarities (see
    `DistillEnsemble`).
    """

    name = "single_dfkd"
    Config = SingleConfig

    def teachers_used(self, context: FitContext[SingleConfig]) -> list[Teacher]:
        """Return the most accurate teacher of any architecture, the first of equals."""
        return [best_teacher(context.pool)]

    def fit(self, context: FitContext[SingleConfig]) -> dict[str, Tensor]:
        """Invert the teacher and train the student."""
        return StudentTraining(context, self.teachers_used(context), [[0]]).run()[0]
