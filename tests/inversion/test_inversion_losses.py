"""Inversion loss: against the published implementation, numpy, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench.inversion.losses import (
    InversionWeights,
    bn_statistics_loss,
    inversion_loss,
    l2_loss,
    roll,
    total_variation_loss,
)
from bench.nets.base import initialise
from bench.nets.conv4 import Conv4
from bench.nets.norm import RecordingNorm

RELEASED = InversionWeights(cross_entropy=1.0, bn_statistics=1e-2, total_variation=1e-4, l2=1e-5)


def golden_teacher(golden) -> Conv4:
    names = {"conv": "convs", "bn": "norms"}
    state = {}
    for key, value in golden.items():
        if key.startswith("teacher/block"):
            block, kind, entry = key.removeprefix("teacher/block").split(".")
            state[f"{names[kind]}.{block}.{entry}"] = torch.as_tensor(value)
        elif key.startswith("teacher/head."):
            state[key.removeprefix("teacher/")] = torch.as_tensor(value)
    net = Conv4(5, 32).double().eval().requires_grad_(False)
    net.load_state_dict(state)
    return net


@pytest.mark.golden
def test_loss_at_each_offset_equals_the_published(golden):
    net, labels = golden_teacher(golden), torch.as_tensor(golden["labels"])
    images = torch.as_tensor(golden["images"])
    for (dy, dx), expected in zip(golden["offsets"], golden["inversion_loss"], strict=True):
        terms = inversion_loss(net, roll(images, int(dy), int(dx)), labels, RELEASED)
        np.testing.assert_allclose(terms.total.item(), expected, rtol=1e-9)


@pytest.mark.golden
@pytest.mark.parametrize("term", ["cross_entropy", "bn_statistics", "total_variation", "l2"])
def test_terms_equal_the_published(golden, term):
    images, labels = torch.as_tensor(golden["images"]), torch.as_tensor(golden["labels"])
    terms = inversion_loss(golden_teacher(golden), images, labels, RELEASED)
    np.testing.assert_allclose(getattr(terms, term).item(), golden[term], rtol=1e-9)


@pytest.mark.golden
def test_gradient_equals_the_published(golden):
    images = torch.as_tensor(golden["images"]).requires_grad_()
    dy, dx = (int(value) for value in golden["offsets"][1])
    labels = torch.as_tensor(golden["labels"])
    terms = inversion_loss(golden_teacher(golden), roll(images, dy, dx), labels, RELEASED)
    (gradient,) = torch.autograd.grad(terms.total, images)
    expected = golden["inversion_grad"]
    atol = 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-9, atol=atol)


def random_images(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_total_variation_and_l2_equal_numpy():
    x = random_images(3, 2, 6, 5)
    a = x.numpy()
    differences = (
        np.diff(a, axis=3),
        np.diff(a, axis=2),
        a[:, :, 1:, 1:] - a[:, :, :-1, :-1],
        a[:, :, 1:, :-1] - a[:, :, :-1, 1:],
    )
    expected = sum(np.sqrt((d**2).sum()) for d in differences)
    assert total_variation_loss(x).item() == pytest.approx(expected, rel=1e-12)
    assert l2_loss(x).item() == pytest.approx(np.sqrt((a**2).sum()), rel=1e-12)


def test_total_variation_of_one_bright_pixel_by_hand():
    """An inner pixel of height 3 enters each kind of difference twice: 4 · √(2 · 9)."""
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    x[0, 0, 2, 2] = 3
    assert total_variation_loss(x).item() == pytest.approx(4 * np.sqrt(18), rel=1e-12)


def test_bn_statistics_equal_numpy():
    x = random_images(4, 3, 5, 5) * 2 + 1
    layer = nn.BatchNorm2d(3).double().eval()
    layer.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
    layer.running_var.copy_(torch.tensor([1.5, 0.2, 4.0]))
    norm = RecordingNorm()
    norm(layer, x)
    norm(layer, 2 * x)
    expected = 0.0
    for a in (x.numpy(), 2 * x.numpy()):
        expected += np.linalg.norm(layer.running_var.numpy() - a.var((0, 2, 3)))
        expected += np.linalg.norm(layer.running_mean.numpy() - a.mean((0, 2, 3)))
    assert bn_statistics_loss(norm.layers).item() == pytest.approx(expected, rel=1e-12)


def test_bn_statistics_vanish_where_the_layer_saw_this_batch():
    x = random_images(4, 3, 5, 5)
    layer = nn.BatchNorm2d(3).double().eval()
    layer.running_mean.copy_(x.mean((0, 2, 3)))
    layer.running_var.copy_(x.var((0, 2, 3), correction=0))
    norm = RecordingNorm()
    norm(layer, x)
    assert bn_statistics_loss(norm.layers).item() < 1e-14
    assert bn_statistics_loss([(layer, layer.running_mean + 1, layer.running_var)]).item() > 1


def test_roll_wraps_around_and_is_undone_by_its_opposite():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(roll(x, 1, -2), torch.as_tensor(np.roll(x.numpy(), (1, -2), (2, 3))))
    assert torch.equal(roll(roll(x, 1, -2), -1, 2), x)


@pytest.mark.parametrize("loss", [total_variation_loss, l2_loss])
def test_pixel_losses_pass_gradcheck(loss):
    assert torch.autograd.gradcheck(loss, random_images(2, 3, 4, 4).requires_grad_())


def small_net() -> Conv4:
    net = Conv4(3, 16, channels=4)
    initialise(net, torch.Generator().manual_seed(0))
    return net.double().eval().requires_grad_(False)


def test_inversion_loss_passes_gradcheck():
    net, labels = small_net(), torch.tensor([2, 0])
    images = random_images(2, 3, 16, 16).requires_grad_()

    def total(x):
        return inversion_loss(net, x, labels, InversionWeights(1.0, 0.5, 0.1, 0.1)).total

    assert torch.autograd.gradcheck(total, images, fast_mode=True)


def test_total_is_the_weighted_sum_of_the_terms():
    terms = inversion_loss(
        small_net(), random_images(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]), RELEASED
    )
    expected = (
        terms.cross_entropy
        + 1e-2 * terms.bn_statistics
        + 1e-4 * terms.total_variation
        + 1e-5 * terms.l2
    )
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("loss", [total_variation_loss, l2_loss])
def test_gradient_of_a_blank_image_is_zero_not_nan(loss):
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(x), x)
    assert torch.equal(gradient, torch.zeros_like(x))
