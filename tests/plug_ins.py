"""Learners, networks and methods of another author, and how tests register them."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import registry
from bench.contract import FitContext, Learner, Method, OptimiserRecipe, Skip
from bench.learners.base import LearnerSettings
from bench.learners.centroids import class_means, unit
from bench.learners.protonet import ProtoNet
from bench.nets.base import Backbone
from bench.nets.norm import Norm, running_norm


def register(monkeypatch: pytest.MonkeyPatch, kind: registry.Kind, **objects: Any) -> None:
    """Offer classes by name, as an installed distribution would."""
    for name, value in objects.items():
        point = EntryPoint(name, f"{value.__module__}:{value.__name__}", f"purer_bench.{kind}s")
        monkeypatch.setitem(registry._entries(kind), name, point)


@contextmanager
def installed(folder: Path, files: Mapping[str, str], points: str) -> Iterator[None]:
    """Have a distribution `other` installed in a folder, of some files and entry points.

    Args:
        folder: put before the path while the context is open.
        files: content by path in the folder.
        points: the lines of `entry_points.txt`.
    """
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    info = folder / "other-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(points)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget()
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def _forget() -> None:
    importlib.invalidate_caches()
    registry._installed.cache_clear()
    registry._entries.cache_clear()
    registry.load.cache_clear()


class Cosine(Learner):
    """Cosine similarity to class means, with stored statistics or the batch's."""

    def __init__(self, net: Backbone, settings: LearnerSettings):
        self.net, self.settings = net, settings

    @property
    def n_parameters(self) -> int:
        """The number of parameters below the head."""
        return sum(p.numel() for n, p in self.net.named_parameters() if n[:5] != "head.")

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Compare unit features."""
        tasks = zip(support_x, support_y, query_x, strict=True)
        return torch.stack([self._predict_one(*task) for task in tasks])

    def _predict_one(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        support, query = unit(self.net.features(support_x)), unit(self.net.features(query_x))
        return query @ unit(class_means(support, support_y, int(support_y.max()) + 1)).mT


class OtherProtoNet(ProtoNet):
    """A metric learner of another name."""


class DepthwiseNet(Backbone):
    """A convolution, a depthwise one, and a mean."""

    recipe = OptimiserRecipe(optimiser="sgd", lr=0.2)

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.norm, self.n_features = nn.BatchNorm2d(8), 8
        self.head = nn.Linear(8, n_classes)

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return features (B, 8)."""
        x = F.relu(norm(self.stem_norm, self.stem(x)))
        return F.relu(norm(self.norm, self.depthwise(x))).mean((2, 3))


class Dense(nn.Module):
    """A plain module that puts activations side by side."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(8, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes)."""
        x = F.relu(self.norm(self.first(x)))
        return self.last(torch.cat([x, self.second(x)], 1).mean((2, 3)))


with warnings.catch_warnings(action="ignore"):

    class Old(Method):
        """Fresh weights; declares its learners as a tuple of names."""

        name = "old"
        knowledge = "parameters"
        learners = ("protonet", "anil")

        def fit(self, context: FitContext) -> dict[str, Tensor]:
            """Draw the weights."""
            return context.build_net(context.generator("initialisation")).state_dict()


class Talking(Old):
    """Says sentences and values while it fits."""

    name = "talking"
    fit_depends_on = frozenset()

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Say one of them twice."""
        for text in ("3 of 5\n  channels moved", "one pass", "one pass"):
            context.log.note(text)
        for barrier in (0.5, 0.25):
            context.log.extra("barrier", {"of teachers": [0, 1], "height": barrier})
        return super().fit(context)


class GivingUp(Old):
    """Finds in the middle of the fit that it cannot go on."""

    name = "giving_up"

    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Save a state, then give up."""
        context.save(1, {"step": 1})
        raise Skip("a layer of this network cannot be merged; use another architecture")
