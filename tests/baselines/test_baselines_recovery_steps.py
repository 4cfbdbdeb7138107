"""What BiDf-MKD and FREE are made of: black boxes, generators, gradients, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from baselines.distillation._losses import distillation_loss
from baselines.merging.average import Average
from baselines.recovery._black_box import BlackBox
from baselines.recovery._black_box_recovery import Recovery, recovery_objective
from baselines.recovery._generated_tasks import disagreement
from baselines.recovery._generator import PixelScale, fresh_generator
from baselines.recovery._gradient_alignment import sequential_displacement
from baselines.recovery._meta_generator import MetaGenerator, adapt
from baselines.recovery._recovered_tasks import student_logits
from baselines.recovery._task_memory import TaskMemory
from baselines.recovery._zero_order import zero_order_gradient
from baselines.recovery.bidf_mkd import BidfMkd, adapt_to_answers
from bench.contract import Pool, TaskShape
from tests.baselines.recovery_fits import (
    context_of,
    conv_pool,
    sealed,
    seeded,
)
from tests.helpers import RecordingLog, tiny_context, tiny_net, tiny_pool


def test_the_zero_order_estimate_converges_to_the_gradient_of_a_quadratic():
    """½xᵀAx + bᵀx has the gradient Ax + b; the error falls as the root of the directions, however
    long the steps are, since what they add of second order is odd in the direction."""
    generator = seeded()
    root = torch.randn(12, 12, generator=generator)
    matrix, shift = root @ root.T / 12, torch.randn(12, generator=generator)
    x = torch.randn(4, 3, 2, 2, generator=generator)

    def values(images):
        flat = images.flatten(2)
        return 0.5 * torch.einsum("kbi,ij,kbj->kb", flat, matrix, flat) + flat @ shift

    true = (x.flatten(1) @ matrix + shift).view_as(x)
    for smoothing in (0.01, 1.0):
        errors = []
        for directions in (100, 20_000):
            found, origin = zero_order_gradient(values, x, directions, smoothing, generator)
            torch.testing.assert_close(origin, values(x[None])[0])
            errors.append(float((found - true).norm() / true.norm()))
        assert errors[1] < 0.08
        assert errors[1] < errors[0] / 5


def test_a_black_box_shows_log_probabilities_classes_and_nothing_of_its_network():
    pool, log = conv_pool(), RecordingLog()
    box = BlackBox(pool[1], log)
    images = torch.randn(7, 3, 16, 16, generator=seeded(), requires_grad=True)
    answers = box(images)
    torch.testing.assert_close(answers, F.log_softmax(pool[1].net(images), 1).detach())
    assert not answers.requires_grad
    assert log.counters == {"queries": 7, "teacher_forward_images": 7}
    assert (box.class_ids, len(box)) == (pool[1].class_ids, 5)
    shown = {name: getattr(box, name) for name in dir(box) if not name.startswith("_")}
    assert shown.keys() == {"class_ids", "class_names"}
    assert torch.equal(BlackBox(sealed(pool)[1], RecordingLog())(images), answers)


def test_a_black_box_resizes_and_leaves_out_outputs_without_a_class():
    pool = tiny_pool(("conv4",), 5, 16, seeded())
    few = replace(pool[0], class_ids=(0, 1, 2, 3), class_names=tuple("abcd"))
    answers = BlackBox(few, RecordingLog())(torch.randn(2, 3, 32, 32, generator=seeded()))
    assert answers.shape == (2, 4)
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(2))


def test_bidf_mkd_needs_nothing_of_a_teacher_but_its_answers():
    fits = [BidfMkd().fit(context_of(BidfMkd, pool)) for pool in (conv_pool(), sealed(conv_pool()))]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    with pytest.raises(AssertionError, match="black box"):
        Average().fit(tiny_context(Average, sealed(conv_pool())))


def test_every_query_is_counted():
    """A set of B images takes steps · B · (directions + 1) queries, and B more to distil it."""
    context = context_of(BidfMkd)
    BidfMkd().fit(context)
    visits = context.log.curve("visits")
    n = max(visits.values())
    assert n > 1
    assert context.log.counters["queries"] == n * 2 * 10 * (3 * (2 + 1) + 1)
    assert context.log.counters["teacher_forward_images"] == context.log.counters["queries"]


def linear_box(weights):
    return lambda images: F.log_softmax(images.flatten(1) @ weights, dim=1)


def recovered(recovery, objective, steps, directions, smoothing, seed):
    """Return the pixels after some steps."""
    generator = seeded(seed)
    for _ in range(steps):
        recovery.advance(objective, directions, smoothing, generator)
    return recovery.pixels


def test_boundary_queries_lie_nearer_to_the_boundary_of_the_student_that_still_agrees():
    generator = seeded()
    weights = torch.randn(3 * 8 * 8, 4, generator=generator) / 2
    near = weights + 0.1 * torch.randn(weights.shape, generator=generator)
    labels, margins = torch.arange(4).repeat_interleave(3), []
    scale = PixelScale((0.5,) * 3, (0.25,) * 3, "cpu")

    def student(images):
        return images.flatten(1) @ near

    for asked in (None, student):
        latents = torch.randn(12, 8, generator=seeded(1))
        net = fresh_generator(8, 8, 8, seeded(2), "cpu")
        objective = recovery_objective(linear_box(weights), labels, asked, 1.0)
        pixels = recovered(Recovery(net, latents, scale, 0.02), objective, 150, 20, 0.005, 3)
        images = scale.normalised(pixels)
        guess, answers = student(images), linear_box(weights)(images)
        assert (answers.argmax(1) == labels).float().mean() > 0.9
        assert (guess.argmax(1) == answers.argmax(1)).float().mean() > 0.9
        best = guess.softmax(1).topk(2).values
        margins.append(float((best[:, 0] - best[:, 1]).mean()))
    assert margins[1] < 0.85 * margins[0]


def test_recovery_needs_the_values_it_says():
    calls = []

    def box(images):
        calls.append(len(images))
        return F.log_softmax(images.flatten(1)[:, :4], dim=1)

    net = fresh_generator(8, 4, 8, seeded(), "cpu")
    objective = recovery_objective(box, torch.arange(4))
    latents = torch.randn(4, 8, generator=seeded())
    scale = PixelScale((0.5,) * 3, (0.25,) * 3, "cpu")
    recovery = Recovery(net, latents, scale, 0.01)
    pixels, least = recovered(recovery, objective, 5, 7, 0.01, 0), recovery.least
    assert sum(calls) == 5 * 4 * (7 + 1)
    assert pixels.shape == (4, 3, 8, 8)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1
    values = objective(scale.normalised(pixels))(scale.normalised(pixels)[None])
    torch.testing.assert_close(values.mean(), least)


def test_the_inner_loop_of_distillation_is_sgd_and_differentiable():
    net = tiny_net(seeded())
    images = torch.randn(10, 3, 16, 16, generator=seeded(1))
    answers = F.log_softmax(torch.randn(10, 5, generator=seeded(2)), 1)
    params = dict(net.named_parameters())
    adapted = adapt_to_answers(net, params, images, answers, 3, 0.1, "kl")
    copy = tiny_net(seeded())
    sgd = torch.optim.SGD(copy.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        sgd.zero_grad()
        loss = distillation_loss(
            student_logits(copy, dict(copy.named_parameters()), images, 5), answers
        )
        loss.backward()
        losses.append(loss.item())
        sgd.step()
    assert losses == sorted(losses, reverse=True)
    for name, value in copy.named_parameters():
        torch.testing.assert_close(adapted[name], value, rtol=1e-3, atol=1e-5)
    outer = distillation_loss(student_logits(net, adapted, images, 5), answers)
    assert float(torch.autograd.grad(outer, params["head.weight"])[0].abs().sum()) > 0


def test_the_divergence_and_its_published_form():
    logits = torch.randn(6, 4, generator=seeded())
    answers = F.log_softmax(torch.randn(6, 4, generator=seeded(1)), 1)
    p, q = answers.exp(), logits.softmax(1)
    expected = (p * (answers - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation_loss(logits, answers), expected)
    assert float(distillation_loss(answers, answers)) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(
        distillation_loss(logits, answers, "as_published"), (p * (answers - q)).mean()
    )


def test_disagreement_counts_only_where_both_name_the_same_class():
    student = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    answers = F.log_softmax(torch.tensor([[5.0, 0.0], [0.0, 5.0]]), 1)
    q = student[0].softmax(0)
    expected = (q * (q.log() - answers[0])).sum() / 2
    torch.testing.assert_close(disagreement(student, answers, "kl"), expected)


def test_displacement_by_hand_raises_the_inner_product_of_the_gradients():
    """Losses ½ax² and ½b(x - c)² have the gradients ax, b(x - c) and curvatures a, b. Two steps of
    SGD lead α(ax + b(x - αax - c)) away; the mean over both orders is α(g₁ + g₂) - ½α²∇(g₁g₂),
    with ∇(g₁g₂) = a·b·(2x - c)."""
    a, b, c, x, lr = 2.0, 3.0, 1.5, 4.0, 0.1
    params = {"x": torch.tensor(x)}
    first = lambda p: 0.5 * a * p["x"] ** 2  # noqa: E731
    second = lambda p: 0.5 * b * (p["x"] - c) ** 2  # noqa: E731
    one, met = sequential_displacement(params, [first, second], lr, "sgd")
    other, _ = sequential_displacement(params, [second, first], lr, "sgd")
    assert float(one["x"]) == pytest.approx(lr * (a * x + b * (x - lr * a * x - c)), rel=1e-5)
    assert [float(loss) for loss in met] == pytest.approx(
        [16.0, 0.5 * b * (3.2 - c) ** 2], rel=1e-5
    )
    mean = (float(one["x"]) + float(other["x"])) / 2
    alignment = mean - lr * (a * x + b * (x - c))
    assert alignment == pytest.approx(-(lr**2) / 2 * a * b * (2 * x - c), rel=1e-4)
    assert alignment < 0  # against it is uphill in the inner product
    assert float(params["x"]) == x


def sharp_pool(n: int) -> Pool:
    """Return a pool of teachers that are sure of what they say, though they know nothing."""
    pool = conv_pool(n)
    with torch.no_grad():
        for teacher in pool:
            teacher.net.head.weight.mul_(20)
    return pool


def teacher_loss(teacher):
    labels, scale = torch.arange(5).repeat_interleave(4), PixelScale((0.5,) * 3, (0.25,) * 3, "cpu")
    return lambda pixels: F.cross_entropy(teacher.net(scale.normalised(pixels)), labels)


def test_the_meta_generator_adapts_faster_to_a_teacher_it_never_met_once_it_is_trained():
    """Same latents, same five steps; only where the generator starts has changed."""
    pool = sharp_pool(5)
    generator = fresh_generator(8, 8, 16, seeded(), "cpu")
    meta, draw = MetaGenerator(generator, 0.01), seeded(1)

    def reached() -> float:
        latents = torch.randn(20, 8, generator=seeded(7))
        return float(adapt(generator, latents, teacher_loss(pool[4]), 5, 0.01, 0.01).losses.min())

    before = reached()
    for _ in range(12):
        found = [
            adapt(generator, torch.randn(20, 8, generator=draw), teacher_loss(t), 5, 0.01, 0.01)
            for t in pool[:4]
        ]
        meta.learn(found)
    assert reached() < 0.95 * before


def test_adapting_leaves_the_generator_and_keeps_the_best_pixels():
    generator = fresh_generator(8, 4, 16, seeded(), "cpu")
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    loss_of = teacher_loss(conv_pool()[0])
    latents = torch.randn(20, 8, generator=seeded(1))
    adapted = adapt(generator, latents, loss_of, 5, 0.01, 0.01)
    assert all(torch.equal(v, before[name]) for name, v in generator.state_dict().items())
    torch.testing.assert_close(loss_of(adapted.pixels), adapted.losses.min())
    assert adapted.gradient.keys() == dict(generator.named_parameters()).keys()
    one = adapt(generator, latents, loss_of, 1, 0.01, 0.01)
    loss_of(generator(latents)).backward()
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(one.gradient[name], parameter.grad)


def test_the_memory_keeps_the_latest_and_draws_distinct_images():
    memory = TaskMemory(6, PixelScale((0.5,) * 3, (0.25,) * 3, "cpu"), "cpu")
    levels = torch.arange(32).float().view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 255
    memory.add(levels[:8], (3, 1), ("c", "a"))
    assert memory.classes(4) == [1, 3]
    memory.add(levels[8:16], (3, 1), ("c", "a"))
    assert memory.classes(6) == [1, 3]
    assert memory.classes(7) == []
    shape = TaskShape(2, 2, 9)
    tasks = memory.sample_tasks(3, shape, seeded())
    assert tasks.support_x.shape == (3, 4, 3, 4, 4)
    assert tasks.query_x.shape == (3, 8, 3, 4, 4)  # four are left of six
    both = torch.cat([tasks.support_x, tasks.query_x], 1)[:, :, 0, 0, 0]
    shown = ((both * 0.25 + 0.5) * 255).round().int()
    kept = {2, 3, 8, 9, 10, 11}, {6, 7, 12, 13, 14, 15}
    for row, labels in zip(shown, torch.cat([tasks.support_y, tasks.query_y], 1), strict=True):
        drawn = [set(row[labels == label].tolist()) for label in (0, 1)]
        assert sorted(map(sorted, drawn)) == sorted(map(sorted, kept))
