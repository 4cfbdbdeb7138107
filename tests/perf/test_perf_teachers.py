"""Teacher training: ours beside the plain loop of the field, same maths, in one run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.contract import NetSpec
from bench.execute.machine import prepare_process
from bench.teachers.train import recipe_for, train_teacher

IMAGES = 2400


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    return images, torch.randint(5, (IMAGES,), generator=generator)


def _plain_epoch(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    net.train()
    for x, y in zip(images.split(128), labels.split(128), strict=True):
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 50)
        optimiser.step()


@pytest.mark.benchmark(group="teacher epoch, Conv4, 2,400 images at 32x32")
def test_ours(benchmark) -> None:
    prepare_process()
    images, labels = _data()
    few = images[:10], labels[:10]

    def epoch() -> float:
        generator = torch.Generator().manual_seed(1)
        recipe = recipe_for("conv4", 1, "last")
        return train_teacher(
            NetSpec("conv4", 5, 32), (images, labels), few, recipe, generator, torch.device("cpu")
        ).images_per_s

    benchmark.extra_info["images_per_s"] = benchmark.pedantic(epoch, rounds=5, warmup_rounds=2)


@pytest.mark.benchmark(group="teacher epoch, Conv4, 2,400 images at 32x32")
def test_plain(benchmark) -> None:
    def block(n_in: int) -> list[nn.Module]:
        conv = nn.Conv2d(n_in, 32, 3, padding=1)
        return [conv, nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]

    net = nn.Sequential(
        *block(3), *block(32), *block(32), *block(32), nn.Flatten(), nn.Linear(128, 5)
    )
    benchmark.pedantic(_plain_epoch, (net, *_data()), rounds=5, warmup_rounds=2)
