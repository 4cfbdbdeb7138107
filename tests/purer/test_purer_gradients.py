"""All ways to compute the teachers' gradients give the same numbers, whole or in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.contract import NetSpec, Pool, Teacher
from bench.inversion.losses import (
    TERMS,
    InversionWeights,
    inversion_loss,
    l2_loss,
    pixel_terms_and_gradient,
    roll,
    total_variation_loss,
)
from bench.nets.base import initialise
from bench.nets.conv4 import Conv4
from bench.nets.fast.fused import FrozenStatisticsNorm
from bench.nets.imported import Imported
from bench.nets.norm import RecordingNorm
from bench.nets.resnet import ResNet10
from purer.gradients import PEAK, OneByOne, candidates, network_gradient, saved_bytes
from tests.inversion.test_inversion_losses import golden_teacher

RELEASED = InversionWeights(1.0, 1e-2, 1e-4, 1e-5)
STRONG = InversionWeights(1.0, 0.5, 0.1, 0.1)
WAYS = ("plain", "fused", "stacked")
MANY = 2**40


def teacher_of(net, spec: NetSpec) -> Teacher:
    return Teacher(
        name="t",
        dataset="drawn",
        spec=spec,
        class_names=("a", "b", "c"),
        class_ids=(0, 1, 2),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        accuracy=0.5,
        sha256="",
        net=net.double().eval().requires_grad_(False),
    )


def mixed_pool() -> tuple[Pool, list[torch.Tensor], list[torch.Tensor]]:
    """Conv4, ResNet10, Conv4, and a Conv4 with a smaller block; their labels and blocks."""
    kinds = [("conv4", 6), ("resnet10", 6), ("conv4", 6), ("conv4", 4)]
    teachers, labels, blocks = [], [], []
    for index, (kind, n) in enumerate(kinds):
        net = Conv4(3, 16, channels=4) if kind == "conv4" else ResNet10(3, 16)
        generator = torch.Generator().manual_seed(index)
        initialise(net, generator)
        teachers.append(teacher_of(net, NetSpec(kind, 3, 16)))
        labels.append(torch.arange(n // 2).repeat_interleave(2))
        blocks.append(torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64))
    return Pool(teachers, "drawn"), labels, blocks


def expected_results(pool, labels, blocks, weights):
    for teacher, y, block in zip(pool, labels, blocks, strict=True):
        block = block.clone().requires_grad_()
        loss = inversion_loss(teacher.net, block, y, weights)
        terms = torch.stack([getattr(loss, name) for name in TERMS.values()])
        yield torch.autograd.grad(loss.total, block)[0], terms.detach()


@pytest.mark.parametrize("way", WAYS)
def test_ways_equal_automatic_differentiation_of_the_loss(way):
    pool, labels, blocks = mixed_pool()
    kept = [block.clone() for block in blocks]
    gradients, terms = candidates(pool, labels, STRONG, MANY)[way]()(range(4), blocks)
    expected = list(expected_results(pool, labels, blocks, STRONG))
    for index, (gradient, values) in enumerate(expected):
        torch.testing.assert_close(gradients[index], gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(terms[index], values, rtol=1e-10, atol=0)
        assert torch.equal(blocks[index], kept[index])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chosen", [[2], [3, 0], [1, 2]])
def test_some_of_the_teachers_get_what_all_would(way, chosen):
    pool, labels, blocks = mixed_pool()
    passes = candidates(pool, labels, STRONG, MANY)[way]()
    everyone, terms = passes(range(4), blocks)
    gradients, some_terms = passes(chosen, [blocks[index] for index in chosen])
    torch.testing.assert_close(some_terms, terms[chosen], rtol=1e-9, atol=0)
    for index, gradient in zip(chosen, gradients, strict=True):
        torch.testing.assert_close(gradient, everyone[index], rtol=1e-9, atol=1e-12)


def test_which_teachers_a_step_takes_is_not_copied_to_the_device(monkeypatch):
    """A copy of a list of numbers would have a GPU and the CPU wait at each step."""
    pool, labels, blocks = mixed_pool()
    passes = candidates(pool, labels, STRONG, MANY)["stacked"]()
    monkeypatch.setattr(torch, "tensor", lambda *args, **kwargs: pytest.fail("copied"))
    members = passes.members([2, 3])
    assert [numbers.tolist() for numbers in members] == [[1], [], [0]]
    assert all(numbers.dtype == torch.long for numbers in members)
    passes([2, 3], [blocks[2], blocks[3]])


@pytest.mark.golden
@pytest.mark.parametrize("way", WAYS)
def test_ways_equal_the_published(golden, way):
    net, labels = golden_teacher(golden), torch.as_tensor(golden["labels"])
    pool = Pool([teacher_of(net, NetSpec("conv4", 5, 32))] * 2, "golden")
    passes = candidates(pool, [labels] * 2, RELEASED, MANY)[way]()
    images = torch.as_tensor(golden["images"])
    for (dy, dx), expected in zip(golden["offsets"], golden["inversion_loss"], strict=True):
        _, terms = passes([0, 1], [roll(images, int(dy), int(dx)), images])
        np.testing.assert_allclose(terms[0, 0].item(), expected, rtol=1e-9)
        for name, value in zip(list(TERMS)[1:], terms[1, 1:].tolist(), strict=True):
            np.testing.assert_allclose(value, golden[name], rtol=1e-9)
    dy, dx = (int(value) for value in golden["offsets"][1])
    gradients, _ = passes([0, 1], [roll(images, dy, dx), images])
    expected = golden["inversion_grad"]
    atol = 1e-12 * np.abs(expected).max()
    found = roll(gradients[0], -dy, -dx).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("per_chunk", [1, 3, 4])
@pytest.mark.parametrize("make_norm", [RecordingNorm, lambda: FrozenStatisticsNorm({})])
@pytest.mark.parametrize("index", [0, 1], ids=["conv4", "resnet10"])
def test_chunks_change_nothing(index, make_norm, per_chunk):
    """Statistics are those of the whole block; a chunk on its own would have others."""
    pool, labels, blocks = mixed_pool()
    arguments = (pool[index].net, make_norm, blocks[index], labels[index], STRONG)
    whole, chunked = network_gradient(*arguments, 6), network_gradient(*arguments, per_chunk)
    for expected, found in zip(whole, chunked, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    part = network_gradient(
        pool[index].net, make_norm, blocks[index][:3], labels[index][:3], STRONG, 6
    )
    assert (part[0] - whole[0][:3]).abs().max() > 1e-6


def test_a_block_beyond_its_memory_is_cut_and_gives_the_same():
    pool, labels, blocks = mixed_pool()
    whole = OneByOne(pool, labels, STRONG, MANY, fused=True)
    image = blocks[0][:1].clone().requires_grad_()
    net = pool[0].net
    per_image = saved_bytes(lambda: net(image, FrozenStatisticsNorm({})), held_by=net)
    cut = OneByOne(pool, labels, STRONG, int(2 * PEAK * per_image), fused=True)
    results = whole(range(4), blocks), cut(range(4), blocks)
    assert whole._chunks[0] == 6
    assert cut._chunks[0] == 2
    assert cut._chunks[1] == 1  # a ResNet's image takes more
    for expected, found in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-9, atol=0)


def test_saved_bytes_count_what_a_graph_keeps():
    """A product of two tensors that are not leaves keeps both: 2 · 100 · 8 bytes."""
    x = torch.ones(100, dtype=torch.float64, requires_grad=True)
    a, b = x + 1, x + 2
    assert saved_bytes(lambda: a * b, held_by=nn.Module()) == 1600


def test_weights_are_there_whether_or_not_a_graph_is():
    layer = nn.Linear(10, 1000, bias=False, dtype=torch.float64).requires_grad_(False)
    x = torch.ones(1, 10, dtype=torch.float64, requires_grad=True)
    assert saved_bytes(lambda: layer(x), held_by=nn.Module()) >= 80_000
    assert saved_bytes(lambda: layer(x), held_by=layer) < 1_000


@pytest.mark.parametrize("weights", [RELEASED, InversionWeights(1, 1, 0, 3), STRONG])
def test_pixel_gradient_in_closed_form_equals_the_automatic_one(weights):
    from bench.inversion.losses import l2_loss, total_variation_loss

    x = torch.randn(3, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tv, l2, gradient = pixel_terms_and_gradient(x, weights)
    x.requires_grad_()
    total = weights.total_variation * total_variation_loss(x) + weights.l2 * l2_loss(x)
    torch.testing.assert_close(gradient, torch.autograd.grad(total, x)[0], rtol=1e-10, atol=1e-15)
    assert tv == total_variation_loss(x)
    assert l2 == l2_loss(x)


def test_pixel_gradient_of_blank_images_is_zero_not_nan():
    x = torch.zeros(2, 3, 4, 4)
    assert torch.equal(pixel_terms_and_gradient(x, RELEASED)[2], x)


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["plain", "stacked", "graphed"])
def test_ways_equal_on_a_gpu(cuda, way):
    pool, labels, blocks = mixed_pool()
    expected = list(expected_results(pool, labels, blocks, STRONG))
    for teacher in pool:
        teacher.net.to(cuda)
    labels = [y.to(cuda) for y in labels]
    passes = candidates(pool, labels, STRONG, MANY)[way]()
    for _ in range(2):  # a graph is recorded at the first call and replayed at the second
        gradients, terms = passes(range(4), [block.to(cuda) for block in blocks])
    for index, (gradient, values) in enumerate(expected):
        torch.testing.assert_close(gradients[index].cpu(), gradient, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(terms[index].cpu(), values, rtol=1e-8, atol=0)


class _Plain(torch.nn.Module):
    """A classifier without batch norm."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.out = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.conv(x).relu().mean((2, 3)))


def test_without_batch_norm_the_other_terms_are_left():
    """In all ways, and in chunks: the gradient is that of cross-entropy, TV and L2 alone."""
    net = Imported(_Plain())
    generator = torch.Generator().manual_seed(0)
    initialise(net, generator)
    pool = Pool([teacher_of(net, NetSpec("plain", 3, 16))], "drawn")
    labels = torch.arange(3).repeat_interleave(2)
    block = torch.randn(6, 3, 16, 16, generator=generator, dtype=torch.float64)
    images = block.clone().requires_grad_()
    loss = F.cross_entropy(pool[0].net(images), labels)
    total = STRONG.cross_entropy * loss
    total = total + STRONG.total_variation * total_variation_loss(images)
    total = total + STRONG.l2 * l2_loss(images)
    (expected,) = torch.autograd.grad(total, images)
    for memory in (MANY, 1):
        for name, way in candidates(pool, [labels], STRONG, memory).items():
            (gradient,), terms = way()([0], [block])
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12, msg=name)
            assert terms[0, list(TERMS).index("bn_statistics")] == 0
