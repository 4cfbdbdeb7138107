"""All backends of the teachers' gradients give the same numbers, whole or in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.contract import NetSpec, Pool, Teacher
from bench.errors import BenchError
from bench.inversion.losses import (
    TERMS,
    InversionWeights,
    l2_loss,
    pixel_terms_and_gradient,
    roll,
    total_variation_loss,
)
from bench.nets.base import initialise
from bench.nets.conv4 import Conv4
from bench.nets.fast.frozen_blocks import FrozenStatisticsNorm
from bench.nets.imported import Imported
from bench.nets.norm import RecordingNorm
from bench.nets.resnet import ResNet10
from purer.gradients import (
    BACKENDS,
    PEAK,
    VARIABLE,
    FusedGradients,
    chosen_backend,
    offered_backends,
)
from purer.network_gradient import network_gradient, saved_bytes
from purer.stacked_gradients import GraphedGradients
from tests.inversion.test_inversion_losses import golden_teacher
from tests.purer.plain_gradients import PlainGradients

RELEASED = InversionWeights(1.0, 1e-2, 1e-4, 1e-5)
STRONG = InversionWeights(1.0, 0.5, 0.1, 0.1)
ON_CPU = ("fused", "stacked")
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


def same_shape_pool() -> tuple[Pool, list[torch.Tensor], list[torch.Tensor]]:
    """The two Conv4 teachers of `mixed_pool` whose blocks are equally large."""
    pool, labels, blocks = mixed_pool()
    return Pool([pool[0], pool[2]], "drawn"), labels[::2], blocks[::2]


def assert_gradients(found, expected, rtol=1e-9, atol=1e-12):
    for one, other in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
    torch.testing.assert_close(found[1], expected[1], rtol=rtol / 10, atol=0)


@pytest.mark.parametrize("backend", ON_CPU)
def test_backends_equal_automatic_differentiation_of_the_loss(backend):
    pool, labels, blocks = mixed_pool()
    kept = [block.clone() for block in blocks]
    found = offered_backends(pool, labels, STRONG, MANY)[backend]()(range(4), blocks)
    assert_gradients(found, PlainGradients(pool, labels, STRONG)(range(4), blocks))
    assert all(torch.equal(block, one) for block, one in zip(blocks, kept, strict=True))


def test_a_graph_is_recorded_once_for_each_number_of_teachers(monkeypatch):
    """Beside CUDA a recorder that runs the function on copies of its inputs stands in."""
    recorded = []

    class Recorder:
        def __init__(self, function, examples):
            recorded.append(len(examples))
            self.function = function

        def __call__(self, inputs):
            return self.function(*[one.clone() for one in inputs])

    monkeypatch.setattr("purer.stacked_gradients.Graphed", Recorder)
    pool, labels, blocks = same_shape_pool()
    graphed, plain = (kind(pool, labels, STRONG) for kind in (GraphedGradients, PlainGradients))
    for chosen in ([0, 1], [1, 0], [1]):
        given = [blocks[index] for index in chosen]
        assert_gradients(graphed(chosen, given), plain(chosen, given))
    assert recorded == [3, 2]  # the teachers' numbers, and a block of each


@pytest.mark.parametrize(
    ("device", "same_shape", "expected"),
    [
        ("cpu", True, ["fused", "stacked"]),
        ("cpu", False, ["fused", "stacked"]),
        ("cuda", True, ["graphed", "stacked", "fused"]),
        ("cuda", False, ["stacked", "fused"]),
        ("xpu", True, ["stacked", "fused"]),
        ("mps", False, ["stacked", "fused"]),
    ],
)
def test_device_and_shapes_say_what_is_offered(device, same_shape, expected):
    pool, labels, _ = same_shape_pool() if same_shape else mixed_pool()

    class Elsewhere(list):
        """Labels that are said to be on a device which this machine may lack."""

    there = [Elsewhere(y.tolist()) for y in labels]
    for y in there:
        y.device = torch.device(device)
    assert list(offered_backends(pool, there, STRONG, MANY)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "fused"), ("", "fused"), ("stacked", "stacked"), ("graphed", "fused")],
)
def test_the_environment_names_a_backend_where_it_is_offered(monkeypatch, value, expected):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert chosen_backend(ON_CPU) == expected


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "measure")
    with pytest.raises(BenchError, match="= measure; use fused, stacked or graphed, or unset it"):
        chosen_backend(ON_CPU)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("chosen", [[2], [3, 0], [1, 2]])
def test_some_of_the_teachers_get_what_all_would(backend, chosen):
    pool, labels, blocks = mixed_pool()
    gradients_of = offered_backends(pool, labels, STRONG, MANY)[backend]()
    everyone, terms = gradients_of(range(4), blocks)
    gradients, some_terms = gradients_of(chosen, [blocks[index] for index in chosen])
    torch.testing.assert_close(some_terms, terms[chosen], rtol=1e-9, atol=0)
    for index, gradient in zip(chosen, gradients, strict=True):
        torch.testing.assert_close(gradient, everyone[index], rtol=1e-9, atol=1e-12)


def test_which_teachers_a_step_takes_is_not_copied_to_the_device(monkeypatch):
    """A copy of a list of numbers would have a GPU and the CPU wait at each step."""
    pool, labels, blocks = mixed_pool()
    stacked = offered_backends(pool, labels, STRONG, MANY)["stacked"]()
    monkeypatch.setattr(torch, "tensor", lambda *args, **kwargs: pytest.fail("copied"))
    members = stacked.members([2, 3])
    assert [numbers.tolist() for numbers in members] == [[1], [], [0]]
    assert all(numbers.dtype == torch.long for numbers in members)
    stacked([2, 3], [blocks[2], blocks[3]])


@pytest.mark.golden
@pytest.mark.parametrize("backend", ["plain", *ON_CPU])
def test_backends_equal_the_published(golden, backend):
    net, labels = golden_teacher(golden), torch.as_tensor(golden["labels"])
    pool = Pool([teacher_of(net, NetSpec("conv4", 5, 32))] * 2, "golden")
    if backend == "plain":
        gradients_of = PlainGradients(pool, [labels] * 2, RELEASED)
    else:
        gradients_of = offered_backends(pool, [labels] * 2, RELEASED, MANY)[backend]()
    images = torch.as_tensor(golden["images"])
    for (dy, dx), expected in zip(golden["offsets"], golden["inversion_loss"], strict=True):
        _, terms = gradients_of([0, 1], [roll(images, int(dy), int(dx)), images])
        np.testing.assert_allclose(terms[0, 0].item(), expected, rtol=1e-9)
        for name, value in zip(list(TERMS)[1:], terms[1, 1:].tolist(), strict=True):
            np.testing.assert_allclose(value, golden[name], rtol=1e-9)
    dy, dx = (int(value) for value in golden["offsets"][1])
    gradients, _ = gradients_of([0, 1], [roll(images, dy, dx), images])
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
    whole = FusedGradients(pool, labels, STRONG, MANY)
    image = blocks[0][:1].clone().requires_grad_()
    net = pool[0].net
    per_image = saved_bytes(lambda: net(image, FrozenStatisticsNorm({})), held_by=net)
    cut = FusedGradients(pool, labels, STRONG, int(2 * PEAK * per_image))
    results = whole(range(4), blocks), cut(range(4), blocks)
    assert whole._chunks[0] == 6
    assert cut._chunks[0] == 2
    assert cut._chunks[1] == 1  # a ResNet's image takes more
    assert_gradients(results[1], results[0])


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
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_equal_on_a_gpu(cuda, backend):
    pool, labels, blocks = same_shape_pool() if backend == "graphed" else mixed_pool()
    everyone = range(len(pool))
    expected = PlainGradients(pool, labels, STRONG)(everyone, blocks)
    for teacher in pool:
        teacher.net.to(cuda)
    labels, blocks = ([x.to(cuda) for x in each] for each in (labels, blocks))
    gradients_of = offered_backends(pool, labels, STRONG, MANY)[backend]()
    for _ in range(2):  # a graph is recorded at the first call and replayed at the second
        gradients, terms = gradients_of(everyone, blocks)
        found = [gradient.cpu() for gradient in gradients], terms.cpu()
        assert_gradients(found, expected, rtol=1e-7, atol=1e-10)


class _Plain(torch.nn.Module):
    """A classifier without batch norm."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.out = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.conv(x).relu().mean((2, 3)))


def test_without_batch_norm_the_other_terms_are_left():
    """By all backends, and in chunks: the gradient of cross-entropy, TV and L2 alone."""
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
        for name, make in offered_backends(pool, [labels], STRONG, memory).items():
            (gradient,), terms = make()([0], [block])
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12, msg=name)
            assert terms[0, list(TERMS).index("bn_statistics")] == 0
