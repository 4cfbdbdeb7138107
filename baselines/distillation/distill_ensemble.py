"""One student that reproduces the features of the whole ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.distillation._student_training import (
    Distillation,
    DistillationConfig,
    StudentTraining,
)
from bench.contract import FitContext

if TYPE_CHECKING:
    from torch import Tensor


class DistillEnsemble(Distillation[DistillationConfig]):
    """One student distilled from all teachers at once, on their pseudo images.

    What `ensemble_centroids` computes with the whole pool, at the price of one network: each view
    of a pseudo image, of whichever teacher, is shown to *all* teachers, and the student learns the
    features with which the nearest centroid does best there. It matches them through a linear map,
    and their similarities directly, in the space in which centroids are compared (Tung and Mori,
    ICCV 2019, arXiv 1907.09682; Park et al., CVPR 2019, arXiv 1904.05068; see
    `_losses.py`). Teachers' answers are computed once for each view and used several
    times. Inversion: DeepInversion, Yin et al., CVPR 2020, arXiv 1912.08795. The use of a pool of
    teachers with separate classes is ours, and so are all constants, chosen on validation tasks of
    CIFAR-FS.

    Departures from data-free distillation as published: see `SingleDfkd`; soft labels are part of
    the features and have no loss of their own.
    """

    name = "distill_ensemble"

    def fit(self, context: FitContext[DistillationConfig]) -> dict[str, Tensor]:
        """Invert each teacher and train one student on all of them."""
        teachers = self.teachers_used(context)
        return StudentTraining(context, teachers, [range(len(teachers))]).run()[0]
