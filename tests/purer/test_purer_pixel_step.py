"""Pixel step: the sum over teachers, its weights and shifts, and Adam."""

from __future__ import annotations

import pytest
import torch

from bench.contract import Pool
from bench.inversion.losses import InversionWeights, inversion_loss, roll
from purer.dynamic_dataset import DynamicDataset
from purer.gradients import VARIABLE
from purer.pixel_step import PixelStep

WEIGHTS = InversionWeights(1.0, 1e-2, 1e-4, 1e-5)
CLASSES = ((7, 2, 9), (4, 2), (30, 31, 32))


def make_step(pool: Pool, jitter=2, clip=None, teacher_weights="uniform", **more):
    dataset = DynamicDataset(pool, 3, torch.Generator().manual_seed(0))
    shifts = torch.Generator().manual_seed(1)
    step = PixelStep(dataset, pool, WEIGHTS, 0.25, clip, jitter, teacher_weights, shifts, **more)
    return dataset, step


def autograd_of_the_sum(pool: Pool, dataset: DynamicDataset, factors, offsets) -> torch.Tensor:
    """The gradient of one graph over all teachers."""
    images = dataset.images
    total = 0
    for index, (factor, (dy, dx)) in enumerate(zip(factors, offsets, strict=True)):
        block, labels = dataset.teacher_batch(index)
        loss = inversion_loss(pool[index].net, roll(block, dy, dx), labels, WEIGHTS)
        total = total + factor * loss.total
    return torch.autograd.grad(total, images)[0]


@pytest.mark.parametrize(
    ("teacher_weights", "factors"), [("uniform", (1, 1, 1)), ("cumulative", (3, 2, 1))]
)
def test_gradient_is_that_of_the_weighted_sum(make_pool, teacher_weights, factors):
    pool = make_pool(*CLASSES)
    dataset, step = make_step(pool, teacher_weights=teacher_weights)
    drawn = torch.randint(-2, 3, (3, 2), generator=torch.Generator().manual_seed(1)).tolist()
    gradient, _ = step.inversion_gradient()
    expected = autograd_of_the_sum(pool, dataset, factors, drawn)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert expected.flatten(1).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("n", [1, 5, 13])
def test_cumulative_weights_are_what_a_running_sum_gives(make_pool, n):
    """Adding the running sum of losses inside the loop counts loss i N - i times."""
    pool = make_pool(*[(3 * i, 3 * i + 1) for i in range(n)])
    counts = [0] * n
    for seen in range(n):
        for i in range(seen + 1):
            counts[i] += 1
    assert make_step(pool, teacher_weights="cumulative")[1].factors(n) == counts
    assert make_step(pool)[1].factors(n) == [1] * n


@pytest.mark.parametrize("teacher_weights", ["uniform", "cumulative"])
def test_only_the_step_s_teachers_have_a_gradient(make_pool, teacher_weights):
    """In their order: the first of two counts twice under cumulative weights."""
    pool = make_pool(*CLASSES)
    dataset, step = make_step(pool, teacher_weights=teacher_weights)
    drawn = torch.randint(-2, 3, (3, 2), generator=torch.Generator().manual_seed(1)).tolist()
    gradient, _ = step.inversion_gradient([2, 0])
    factors = (1, 0, 2) if teacher_weights == "cumulative" else (1, 0, 1)
    expected = autograd_of_the_sum(pool, dataset, factors, drawn)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_every_shift_in_reach_is_drawn_for_each_teacher_of_its_own(make_pool):
    _, step = make_step(make_pool(*CLASSES))
    draws = torch.tensor([step._offsets() for _ in range(300)])  # (300, 3, 2)
    for teacher in range(3):
        assert len({tuple(o) for o in draws[:, teacher].tolist()}) == 25
    assert not torch.equal(draws[:, 0], draws[:, 1])


def test_no_jitter_means_no_shift(make_pool):
    _, step = make_step(make_pool(*CLASSES), jitter=0)
    assert step._offsets() == [[0, 0]] * 3


def test_apply_is_adam(make_pool):
    dataset, step = make_step(make_pool(*CLASSES))
    reference = dataset.images.detach().clone().requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.25, foreach=False)
    start = reference.detach().clone()
    for _ in range(5):
        gradient, _ = step.inversion_gradient()
        reference.grad = gradient.clone()
        adam.step()
        step.apply(gradient)
    torch.testing.assert_close(dataset.images - start, reference - start, rtol=1e-4, atol=1e-5)
    assert (dataset.images - start).abs().min() > 0


def test_apply_clips_where_asked(make_pool):
    dataset, step = make_step(make_pool(*CLASSES), clip=0.75)
    step.apply(step.inversion_gradient()[0])
    assert dataset.images.abs().max() == 0.75


def test_terms_are_means_over_teachers(make_pool):
    pool = make_pool(*CLASSES)
    dataset, step = make_step(pool, jitter=0)
    _, terms = step.inversion_gradient()
    losses = [inversion_loss(t.net, *dataset.teacher_batch(i), WEIGHTS) for i, t in enumerate(pool)]
    for name in ("cross_entropy", "bn_statistics", "total_variation", "l2"):
        expected = torch.stack([getattr(loss, name) for loss in losses]).mean()
        torch.testing.assert_close(terms[name], expected.detach(), rtol=1e-5, atol=0)
        assert not terms[name].requires_grad
    expected = torch.stack([loss.total for loss in losses]).mean()
    torch.testing.assert_close(terms["inversion"], expected.detach(), rtol=1e-5, atol=0)


def test_teachers_stay_as_they_were(make_pool):
    pool = make_pool(*CLASSES)
    before = [{k: v.clone() for k, v in t.net.state_dict().items()} for t in pool]
    _, step = make_step(pool)
    for _ in range(3):
        step.apply(step.inversion_gradient()[0])
    for teacher, state in zip(pool, before, strict=True):
        assert not teacher.net.training
        assert all(p.grad is None for p in teacher.net.parameters())
        for name, value in teacher.net.state_dict().items():
            assert torch.equal(value, state[name])


def test_a_resumed_step_goes_on_bit_by_bit(make_pool):
    pool = make_pool(*CLASSES)
    whole, step = make_step(pool)
    for _ in range(2):
        step.apply(step.inversion_gradient()[0])
    saved = step.state_dict()
    for _ in range(3):
        step.apply(step.inversion_gradient()[0])
    resumed, other_step = make_step(pool)
    other_step.load_state_dict(saved)
    assert not torch.equal(resumed.images, whole.images)  # what was saved did not move on
    for _ in range(3):
        other_step.apply(other_step.inversion_gradient()[0])
    assert torch.equal(resumed.images, whole.images)


def test_the_backend_is_taken_once_and_goes_with_the_state(make_pool, monkeypatch):
    """A resumed step goes on with it: another backend would round differently."""
    pool, noted = make_pool(*CLASSES), []
    monkeypatch.setenv(VARIABLE, "stacked")
    dataset, step = make_step(pool, note_backend=lambda *what: noted.append(what))
    for _ in range(2):
        step.apply(step.inversion_gradient()[0])
    assert noted == [("inversion: 3 conv4, 9 images, 16 px", "stacked")]
    monkeypatch.delenv(VARIABLE)
    resumed, other = make_step(pool, note_backend=lambda *what: noted.append(what))
    other.load_state_dict(step.state_dict())
    for each in (step, other):
        each.apply(each.inversion_gradient()[0])
    assert other.backend == "stacked"
    assert noted == [("inversion: 3 conv4, 9 images, 16 px", "stacked")] * 2
    assert torch.equal(resumed.images, dataset.images)


def test_a_state_from_another_kind_of_device_goes_on(make_pool):
    """`graphed` is offered by CUDA alone; elsewhere the default is taken, as by a new step."""
    pool = make_pool(*CLASSES)
    dataset, step = make_step(pool)
    step.apply(step.inversion_gradient()[0])
    resumed, other = make_step(pool)
    other.load_state_dict(step.state_dict() | {"backend": "graphed"})
    for each in (step, other):
        each.apply(each.inversion_gradient()[0])
    assert other.backend == step.backend == "fused"
    assert torch.equal(resumed.images, dataset.images)
