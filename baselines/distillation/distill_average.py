"""Distil each teacher into a student, then average the students' weights."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.distillation._network_training import state_of
from baselines.distillation._pseudo_views import draw_views
from baselines.distillation._student import STATISTICS_VIEWS, set_statistics
from baselines.distillation._student_training import Distillation, StudentTraining
from baselines.distillation.single_dfkd import SingleConfig
from bench.contract import FitContext
from bench.training.initialisation import average_state


class DistillAverage(Distillation[SingleConfig]):
    """Mean of the weights of one student per teacher, each distilled as in `SingleDfkd`.

    A common baseline of data-free meta-learning. All students start from the same random weights,
    because averaging networks with different initialisations destroys their features (Frankle et
    al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020, arXiv 1912.05671).
    Unlike `average`, it accepts teachers of any architecture.

    Departures: the steps are divided among the students; the BN statistics of the averaged network
    are computed on pseudo images of all teachers, because averaged weights have other activations
    (Jordan et al., "REPAIR", ICLR 2023, arXiv 2211.08403).
    """

    name = "distill_average"
    Config = SingleConfig

    def fit(self, context: FitContext[SingleConfig]) -> dict[str, Tensor]:
        """Invert each teacher, train its student, and average the students."""
        teachers = self.teachers_used(context)
        training = StudentTraining(context, teachers, [[number] for number in range(len(teachers))])
        state = average_state(training.run())
        net = context.build_net(context.generator("initialisation"))
        net.load_state_dict(state)
        views = draw_views(
            torch.cat(list(training.images)),
            STATISTICS_VIEWS,
            teachers[0],
            context.config,
            context.generator("statistics"),
        )
        set_statistics(net, views)
        return state_of(net)
