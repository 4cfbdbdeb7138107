"""The most accurate teacher as initialisation of the meta-model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contract import FitContext, Method
from bench.training.initialisation import fits_body, initial_net

if TYPE_CHECKING:
    from torch import Tensor


class BestTeacher(Method):
    """The teacher with the highest held-out accuracy as initialisation.

    A common baseline of data-free meta-learning. Our choices: only teachers with the meta-model's
    architecture and image size are candidates; of equally accurate ones the first is used; a head
    of another width is initialised at random.
    """

    name = "best_teacher"
    knowledge = "parameters"
    fit_depends_on = frozenset({"n_way"})

    def skip(self, context: FitContext) -> str | None:
        """Skip pools in which no teacher has the meta-model's shape."""
        net = context.net
        if any(fits_body(teacher.spec, net) for teacher in context.pool):
            return None
        return f"no teacher is a {net.architecture} at {net.image_size} px"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Return the best teacher's weights."""
        return dict(initial_net(context, "best_teacher").state_dict())
