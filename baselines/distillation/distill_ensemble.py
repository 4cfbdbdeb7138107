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

    Departures from data-free distillation as published: see `SingleDfkd`; soft labels are part of
    the features and have no loss of their own.
    """

    name = "distill_ensemble"

    def fit(self, context: FitContext[DistillationConfig]) -> dict[str, Tensor]:
        """Invert each teacher and train one student on all of them."""
        teachers = self.teachers_used(context)
        return StudentTraining(context, teachers, [range(len(teachers))]).run()[0]
