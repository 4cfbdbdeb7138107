"""Networks that only an entry point or the package timm would offer, for one test."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench import registry
from bench.nets.imported import _has_a_size
from tests.teachers.own_networks import (
    Backwards,
    NoHead,
    Odd,
    Pair,
    Small,
    SmallWithoutSize,
    TwoHeads,
)


@pytest.fixture
def own_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that a user's package would offer through an entry point."""
    kinds = {"small": Small, "backwards": Backwards, "twoheads": TwoHeads, "pair": Pair,
             "nohead": NoHead}  # fmt: skip
    load, entry = registry.load, registry.entry
    monkeypatch.setattr(registry, "load", lambda kind, name: kinds.get(name) or load(kind, name))
    monkeypatch.setattr(
        registry, "entry", lambda kind, name: None if name in kinds else entry(kind, name)
    )


class Fixed(nn.Module):
    """Takes images of one size only, as vision transformers do."""

    def __init__(self, n_classes: int, img_size: int = 224):
        super().__init__()
        self.fc = nn.Linear(3 * img_size**2, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


class Flexible(Fixed):
    """Takes images of any size, though its weights are of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = round((self.fc.in_features / 3) ** 0.5)
        return super().forward(F.interpolate(x, (side, side)))


class Broken(nn.Module):
    """Cannot be built for the size."""

    def __init__(self, n_classes: int, img_size: int = 224):
        super().__init__()
        if img_size != 224:
            raise TypeError("depth is no number")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError


TIMM = {"small_vit_net": SmallWithoutSize, "fixed": Fixed, "flexible": Flexible, "odd": Odd,
        "broken": Broken}  # fmt: skip


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with timm's two functions and some networks; the real one is no dependency."""

    def create_model(name: str, pretrained: bool, num_classes: int, **more: int) -> nn.Module:
        assert not pretrained
        return TIMM[name](num_classes, **more)

    stub = types.ModuleType("timm")
    stub.list_models, stub.create_model = lambda: list(TIMM), create_model
    monkeypatch.setitem(sys.modules, "timm", stub)
    _has_a_size.cache_clear()
    yield
    _has_a_size.cache_clear()
