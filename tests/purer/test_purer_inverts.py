"""Inversion end to end: noise becomes images that a trained teacher takes for its classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import Pool, Teacher
from bench.nets.norm import training_norm
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset
from purer.pixel_step import PixelStep


def patterned_images(generator: torch.Generator, per_class: int) -> tuple[Tensor, Tensor]:
    """Return noisy images of three classes, each with a coarse random pattern of its own."""
    coarse = 1.5 * torch.randn((3, 1, 3, 4, 4), generator=generator)
    patterns = coarse.repeat_interleave(4, -1).repeat_interleave(4, -2)
    noise = torch.randn((3, per_class, 3, 16, 16), generator=generator)
    labels = torch.arange(3).repeat_interleave(per_class)
    return (patterns + 0.3 * noise).flatten(0, 1), labels


@pytest.fixture
def teacher(make_pool) -> Teacher:
    """A teacher trained to tell three random patterns apart."""
    (untrained,) = make_pool((0, 1, 2))
    net = untrained.net.requires_grad_(True)
    images, labels = patterned_images(torch.Generator().manual_seed(5), 32)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(net(images, training_norm), labels).backward()
        optimiser.step()
    net.requires_grad_(False)
    assert (net(images).argmax(1) == labels).all()
    return replace(untrained, net=net)


def test_pseudo_images_of_a_trained_teacher_are_classified_as_their_labels(teacher):
    config = PurerConfig()
    pool = Pool([teacher], sha256="trained")
    dataset = DynamicDataset(pool, 6, torch.Generator().manual_seed(0))
    step = PixelStep(
        dataset,
        pool,
        config.inversion_weights,
        lr=0.25,
        clip=None,
        jitter=config.jitter,
        teacher_weights="uniform",
        generator=torch.Generator().manual_seed(1),
    )
    images, labels = dataset.teacher_batch(0)
    assert (teacher.net(images).argmax(1) == labels).float().mean() < 0.7
    curve = []
    for _ in range(60):
        gradient, terms = step.inversion_gradient()
        step.apply(gradient)
        curve.append({name: value.item() for name, value in terms.items()})
    images, labels = dataset.teacher_batch(0)
    assert (teacher.net(images).argmax(1) == labels).all()
    late = {name: sum(c[name] for c in curve[-10:]) / 10 for name in curve[0]}
    assert late["inversion"] < 0.5 * curve[0]["inversion"]
    assert late["bn_statistics"] < curve[0]["bn_statistics"]
