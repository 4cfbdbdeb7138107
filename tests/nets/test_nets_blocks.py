"""Hand-written blocks: against automatic differentiation and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from bench.nets.base import initialise
from bench.nets.conv4 import Conv4, plain_block
from bench.nets.fast.batch_blocks import batch_block
from bench.nets.fast.frozen_blocks import FrozenStatisticsNorm
from bench.nets.fast.operations import fast_statistics, maxima
from bench.nets.norm import RecordingNorm, batch_norm, batch_statistics
from bench.nets.resnet import ResNet10


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def block(n_in: int, n_out: int = 6, zero_scale: bool = False) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and a BN layer with scales of both signs, and one of zero where asked."""
    conv, bn = nn.Conv2d(n_in, n_out, 3, padding=1).double(), nn.BatchNorm2d(n_out).double()
    with torch.no_grad():
        for seed, parameter in enumerate([*conv.parameters(), *bn.parameters()]):
            parameter.copy_(drawn(*parameter.shape, seed=seed + 1))
        if zero_scale:
            bn.weight[0] = 0
        assert (bn.weight < 0).any()
        assert (bn.weight > 0).any()
        bn.running_mean.copy_(drawn(n_out, seed=7))
        bn.running_var.copy_(drawn(n_out, seed=8).exp())
    return conv, bn.eval()


def loss_of(y: Tensor, layers) -> Tensor:
    """Any loss that depends on every output and statistic."""
    total = (y * drawn(*y.shape, seed=9)).sum()
    for _, mean, variance in layers:
        total = total + (mean * drawn(len(mean), seed=10)).sum() + variance.exp().sum()
    return total


@pytest.mark.parametrize("size", [(6, 8), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("n_in", [3, 4])
def test_frozen_block_equals_automatic_differentiation(n_in, size):
    """Three channels and even sides take the way of 2×2 pixels at once; others do not."""
    conv, bn = block(n_in, zero_scale=True)
    conv.requires_grad_(False)
    bn.requires_grad_(False)
    results = []
    for norm in (RecordingNorm(), FrozenStatisticsNorm({})):
        x = drawn(3, n_in, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
        way = plain_block if isinstance(norm, RecordingNorm) else type(norm).conv_block
        y = way(norm, conv, bn, x)
        loss = loss_of(y, norm.layers)
        results.append((y, *norm.layers[0][1:], torch.autograd.grad(loss, x)[0]))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make_net", [lambda: Conv4(3, 16, channels=4), lambda: ResNet10(3, 8)])
def test_frozen_nets_equal_recording_ones(make_net):
    net = make_net()
    initialise(net, torch.Generator().manual_seed(0))
    net = net.double().eval().requires_grad_(False)
    results = []
    for norm in (RecordingNorm(), FrozenStatisticsNorm({})):
        x = drawn(4, 3, 16, 16).requires_grad_()
        y = net(x, norm)
        gradient = torch.autograd.grad(loss_of(y, norm.layers), x)[0]
        results.append([y, gradient, *(v for layer in norm.layers for v in layer[1:])])
    assert len(results[0]) > 8
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_fast_statistics_equal_the_plain_ones():
    x = drawn(3, 5, 4, 6) * 3 + 100
    for layout in (torch.channels_last, torch.contiguous_format):
        found = fast_statistics(x.contiguous(memory_format=layout))
        for value, expected in zip(found, batch_statistics(x), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def batch_block_inputs(n_in: int) -> tuple[nn.Conv2d, nn.BatchNorm2d, Tensor]:
    conv, bn = block(n_in)
    x = drawn(3, n_in, 5, 6).contiguous(memory_format=torch.channels_last)
    return conv, bn, x.requires_grad_()


def test_batch_block_equals_automatic_differentiation_twice():
    conv, bn, x = batch_block_inputs(3)
    wanted = [x, conv.weight, bn.weight, bn.bias]

    def both_orders(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(
            (y * drawn(*y.shape, seed=3)).sum() + y.pow(3).sum(), wanted, create_graph=True
        )
        loss = sum(
            (g * drawn(*g.shape, seed=s)).sum() + g.square().sum() for s, g in enumerate(first)
        )
        return [y, *first, *torch.autograd.grad(loss, wanted)]

    expected = both_orders(plain_block(batch_norm, conv, bn, x))
    for found, value in zip(both_orders(batch_block(conv, bn, x)), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-9)
        assert value.abs().max() > 1e-3


def test_batch_block_passes_gradcheck_to_second_order():
    conv, bn, x = batch_block_inputs(2)
    names = ["conv.weight", "bn.weight", "bn.bias"]
    module = nn.ModuleDict({"conv": conv, "bn": bn})

    def run(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        for name, value in given.items():
            module.get_parameter(name)  # the name is right
            layer, entry = name.split(".")
            object.__setattr__(shadow[layer], entry, value)
        return batch_block(shadow["conv"], shadow["bn"], x)

    class Shadow:
        pass

    shadow = {"conv": Shadow(), "bn": Shadow()}
    shadow["conv"].bias, shadow["bn"].eps = conv.bias.detach(), bn.eps
    values = (x, conv.weight, bn.weight, bn.bias)
    assert torch.autograd.gradcheck(run, values)
    assert torch.autograd.gradgradcheck(run, values)


def test_batch_block_serves_function_transforms():
    """`torch.func.grad` of the block, differentiated again by autograd."""
    conv, bn, x = batch_block_inputs(3)

    class Net(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.conv, self.bn, self.way = conv, bn, way

        def forward(self, x: Tensor) -> Tensor:
            return self.way(self.conv, self.bn, x)

    results = []
    for way in (lambda c, b, x: plain_block(batch_norm, c, b, x), batch_block):
        net = Net(way)
        parameters = {n: p for n, p in net.named_parameters() if n != "conv.bias"}
        inner = grad(
            lambda p, net=net: F.softplus(functional_call(net, p, (x.detach(),))).square().sum()
        )(parameters)
        total = sum(g.square().sum() for g in inner.values())
        results.append([*inner.values(), *torch.autograd.grad(total, list(parameters.values()))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(6, 6), (5, 7)])
def test_without_gradients_a_block_has_the_same_bits(size: tuple[int, int]):
    conv, bn = block(3)
    x = drawn(4, 3, *size).float().contiguous(memory_format=torch.channels_last)
    conv, bn = conv.float(), bn.float()
    assert (bn.weight < 0).any()
    recorded = batch_block(conv, bn, x)
    with torch.no_grad():
        found = batch_block(conv, bn, x)
    assert recorded.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, recorded)
    z = drawn(2, 5, *size)
    assert torch.equal(maxima(z), F.max_pool2d(z, 2))


def test_further_derivatives_are_refused_rather_than_wrong():
    conv, bn, x = batch_block_inputs(3)
    (first,) = torch.autograd.grad(batch_block(conv, bn, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)
    for run in (FrozenStatisticsNorm.__call__, None):
        norm = FrozenStatisticsNorm({})
        y = norm.conv_block(conv, bn, x) if run is None else norm(bn, conv(x))
        with pytest.raises(RuntimeError, match="differentiable once"):
            torch.autograd.grad(y.sum(), x, create_graph=True)


def test_the_bias_before_a_batchs_mean_has_no_gradient():
    conv, bn, x = batch_block_inputs(3)
    loss = batch_block(conv, bn, x).square().sum()
    assert torch.equal(torch.autograd.grad(loss, conv.bias)[0], torch.zeros_like(conv.bias))
