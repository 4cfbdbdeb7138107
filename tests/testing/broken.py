"""Plug-ins each of which breaks one rule that `bench check` knows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import bench.execute  # noqa: F401  which no plug-in may
from bench.contract import Calibration, Config, FitContext, Learner, Method, OptimiserRecipe
from bench.learners.base import LearnerSettings
from bench.learners.protonet import ProtoNet
from bench.nets.base import Backbone
from bench.nets.norm import Norm, running_norm


class Sound(Method):
    """Fresh weights."""

    name = "sound"
    knowledge = "parameters"
    fit_depends_on = frozenset({"n_way"})

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Draw the weights."""
        return context.build_net(context.generator("initialisation")).state_dict()


class Undocumented(Config):
    """A setting that says nothing of itself."""

    width: int = Field(1, ge=1)


class Misnamed(Sound):
    """Has another name than it is registered by."""

    name = "other"


class Bare(Sound):
    """Has a setting without a docstring."""

    name = "bare"
    Config = Undocumented


class Forgetful(Sound):
    """Fits otherwise each time."""

    name = "forgetful"
    made = 0

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Count the fits."""
        type(self).made += 1
        fitted = dict(super().fit(context))
        return {**fitted, "head.bias": fitted["head.bias"] + self.made}


class Global(Sound):
    """Draws from the global stream."""

    name = "global"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Add noise."""
        noise, fitted = torch.rand(()), super().fit(context)
        return {k: v + noise if v.is_floating_point() else v for k, v in fitted.items()}


class Meddling(Sound):
    """Changes a teacher."""

    name = "meddling"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Zero a head."""
        with torch.no_grad():
            context.pool[0].net.head.bias.zero_()
        return super().fit(context)


class Unwilling(Sound):
    """Serves nobody."""

    name = "unwilling"

    def skip(self, context: FitContext) -> str | None:
        """Refuse."""
        return "it is Monday"


class Seeded(Sound):
    """Reads the seed where no generator is asked for: from what the harness builds."""

    name = "seeded"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Draw the weights from a generator that came by another way."""
        make = context.generator.__closure__[0].cell_contents.generator
        return context.build_net(make("initialisation")).state_dict()


class Infinite(Sound):
    """Predicts what is no number."""

    name = "infinite"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Break the head and the body."""
        return {k: v / 0 if v.is_floating_point() else v for k, v in super().fit(context).items()}


class BareLearner(Learner):
    def __init__(self, net: Backbone, settings: LearnerSettings):
        self.net = net

    @property
    def n_parameters(self) -> int:
        """None."""
        return 0

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return logits with a graph, that depend on the other tasks."""
        scale = torch.ones((), requires_grad=True)
        return scale * query_x.flatten(2)[..., :5] + query_x.mean()


class Shifty(ProtoNet):
    """Depends on the other tasks, and on the order of the queries."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Add what the other tasks and queries say."""
        logits = super().predict(support_x, support_y, query_x)
        return logits + 1000 * query_x.mean() * torch.arange(logits.shape[1]).view(1, -1, 1)


class Leaning(ProtoNet):
    """Takes the mean over the queries off their logits."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        logits = super().predict(support_x, support_y, query_x)
        return logits - logits.mean(1, keepdim=True)


class Restless(ProtoNet):
    """Trains its network while it predicts."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Move the head."""
        with torch.no_grad():
            self.net.head.bias.add_(1)
        return super().predict(support_x, support_y, query_x)


class Untrained(ProtoNet):
    """Returns losses of which no gradient goes back."""

    def outer_loss(self, params: Any, tasks: Any) -> tuple[Tensor, Tensor]:
        """Cut the graph."""
        losses, logits = super().outer_loss(params, tasks)
        return losses.detach().requires_grad_(), logits


class Cold(ProtoNet):
    """Forgets the temperature."""

    def on_normalised_features(self, temperature: float) -> ProtoNet:
        """Return itself."""
        return self


class Mixing(Backbone):
    """Normalises by itself, over the batch, where nobody can choose; has a parameter too many."""

    recipe = OptimiserRecipe(optimiser="adam", lr=0.01)

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.spare, self.n_features = nn.Parameter(torch.rand(3)), 4
        self.head = nn.Linear(4, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return features (B, 4)."""
        x = self.conv(x) - self.conv(x).mean(0)
        return F.relu(F.batch_norm(x, None, None, training=True)).mean((2, 3))


class Idle(Calibration):
    """Serves nobody who exists, and says nothing of why."""

    name = "idle"

    @classmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Refuse without a reason."""
        return ""

    def wrap(self, learner: Learner, config: Any, generator: Any) -> Learner:
        """Change nothing."""
        return learner


class Still(Idle):
    """Serves all and changes nothing."""

    name = "still"

    @classmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Refuse nobody."""
        return None
