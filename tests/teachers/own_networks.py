"""Networks and checkpoints as a user's own package would have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.teachers.cards import pool_names
from bench.teachers.checkpoint import import_checkpoint

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=generator(5))


class Small(nn.Module):
    """A user's own network: a head under another name, BN, and no notion of features."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.relu(self.bn(self.conv(x))).mean((2, 3)))


class SmallWithoutSize(Small):
    def __init__(self, n_classes: int):
        super().__init__(n_classes, 0)


class Backwards(Small):
    """Its last linear layer is not its end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class TwoHeads(Small):
    """The mean of two heads, as of distilled vision transformers."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__(n_classes, image_size)
        self.second = nn.Linear(6, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.bn(self.conv(x))).mean((2, 3))
        return (self.classifier(features) + self.second(features)) / 2


class Pair(Small):
    """Returns more than logits."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(x),)


class Odd(nn.Module):
    """Takes images of 17 px, and no size to be built for."""

    def __init__(self, n_classes: int):
        super().__init__()
        self.fc = nn.Linear(3 * 17**2, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


class NoHead(nn.Module):
    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, n_classes, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


def state(net: nn.Module, seed: int = 1) -> dict[str, torch.Tensor]:
    """Drawn values for every entry, positive where they are variances."""
    drawn = {}
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=generator(seed)) * 0.3
        drawn[name] = noise.abs() + 0.5 if name.endswith("var") else noise
        if not value.is_floating_point():
            drawn[name] = value.clone()
    return drawn


def card(net: str = "small", n: int = 3, **changes: object) -> dict[str, object]:
    return {
        "architecture": net,
        "class_names": tuple(f"kind{i}" for i in range(n)),
        "dataset": "birds",
        "image_size": 16,
        "mean": MEAN,
        "std": STD,
        "accuracy": 0.75,
    } | changes


def saved(path: Path, net: nn.Module | None = None) -> Path:
    save_file(state(net or Small(3, 16)), path)
    return path


def refused(tmp_path: Path, path: Path, expected: str, *, net: str = "small", **options) -> None:
    values = card(net, **options.pop("changes", {}))
    with pytest.raises(BenchError, match=expected) as caught:
        import_checkpoint(tmp_path / "cache", "mine", path, values, **options)
    assert "\n" not in str(caught.value)
    assert pool_names(tmp_path / "cache") == []
