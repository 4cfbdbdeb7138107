"""ICFIL: each step against a plain version of it, and what it must never change or look at."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from bench import registry
from bench.contract import TaskShape
from bench.errors import BenchError
from bench.learners.base import LearnerSettings
from bench.learners.protonet import ProtoNet
from bench.nets.norm import batch_norm
from bench.seeds import torch_generator
from purer.calibration import CalibratedLearner, Icfil, batched, one_by_one
from purer.icfil import (
    IcfilConfig,
    adam_descent,
    calibrate,
    calibration_objective,
    contrastive_loss,
    invert,
)
from tests.helpers import tiny_net, tiny_tasks

LABELS = torch.arange(5).repeat_interleave(2)


def gradient_learner(name="maml", bn="transductive", inner_steps=1, double=False, **net):
    model = tiny_net(torch_generator("icfil"), **net).requires_grad_(False).eval()
    model = model.double() if double else model
    settings = LearnerSettings(inner_lr=0.1, inner_steps=inner_steps, bn=bn)
    return registry.load("learner", name)(model, settings)


def streams(seed=0):
    return lambda task: torch_generator("icfil noise", seed, task)


def calibrated(learner, seed=0, **config):
    config = {"inversion_steps": 4, "steps": 3, **config}
    return Icfil().wrap(learner, IcfilConfig(**config), streams(seed))


def drawn_tasks(n_tasks=3, k_shot=1, seed=0, double=False):
    tasks = tiny_tasks(torch_generator("icfil tasks", seed), n_tasks, TaskShape(5, k_shot, 3))
    images = [tasks.support_x, tasks.query_x]
    support_x, query_x = (x.double() if double else x for x in images)
    return support_x, tasks.support_y, query_x


@pytest.mark.parametrize("name", ["maml", "anil"])
@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
def test_without_steps_it_is_the_learner_itself(name, bn):
    learner, tasks = gradient_learner(name, bn), drawn_tasks()
    assert torch.equal(calibrated(learner, steps=0).predict(*tasks), learner.predict(*tasks))
    nothing = calibrated(learner, contrastive_weight=0.0, head_weight=0.0)
    assert torch.equal(nothing.predict(*tasks), learner.predict(*tasks))


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_with_steps_it_changes_predictions_and_nothing_else(name):
    learner, tasks = gradient_learner(name), drawn_tasks()
    before = {key: value.clone() for key, value in learner.net.state_dict().items()}
    inputs = [value.clone() for value in tasks]
    state = torch.get_rng_state()
    logits = calibrated(learner).predict(*tasks)
    assert not torch.allclose(logits, learner.predict(*tasks), atol=1e-3)
    assert not logits.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in learner.net.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(tasks, inputs, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_the_pseudo_images_come_from_the_tasks_place_in_the_list():
    learner, (support_x, support_y, query_x) = gradient_learner(), drawn_tasks(4)
    whole = calibrated(learner).predict(support_x, support_y, query_x)
    parts = [
        calibrated(learner).predict_from(i, support_x[i : i + 1], support_y[:1], query_x[i : i + 1])
        for i in (3, 0, 2, 1)
    ]
    assert torch.equal(whole, torch.cat([parts[i] for i in (1, 3, 2, 0)]))
    again = calibrated(learner).predict(support_x, support_y, query_x)
    other = calibrated(learner, seed=1).predict(support_x, support_y, query_x)
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other)
    moved = calibrated(learner).predict_from(1, support_x, support_y, query_x)
    assert not torch.equal(whole, moved)


@pytest.mark.parametrize("name", ["maml", "anil"])
@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
def test_tasks_at_once_are_tasks_one_by_one(name, bn, monkeypatch):
    """In double precision, with the normalisation that batched tasks use."""
    learner, tasks = gradient_learner(name, bn, double=True), drawn_tasks(double=True)
    model = calibrated(learner, inversion_steps=3, steps=2)
    serial = model.predict(*tasks)
    monkeypatch.setattr("purer.calibration.batches_tasks", lambda device: True)
    monkeypatch.setattr("bench.learners.batching.batches_tasks", lambda device: True)
    torch.testing.assert_close(model.predict(*tasks), serial, rtol=1e-6, atol=1e-8)
    assert batched is not one_by_one


def test_a_query_is_calibrated_without_the_other_queries():
    """With the support's statistics, a query's logits do not depend on the other queries."""
    learner, (support_x, support_y, query_x) = gradient_learner(bn="support"), drawn_tasks(1)
    model = calibrated(learner)
    whole = model.predict(support_x, support_y, query_x)
    for index in (0, 7, 14):
        alone = model.predict(support_x, support_y, query_x[:, index : index + 1])
        torch.testing.assert_close(alone[:, 0], whole[:, index], rtol=1e-4, atol=1e-5)
    changed = query_x.clone()
    changed[:, 1:] = 3.0
    torch.testing.assert_close(
        model.predict(support_x, support_y, changed)[:, 0], whole[:, 0], rtol=1e-4, atol=1e-5
    )


def test_permuting_the_support_changes_nothing():
    learner = gradient_learner(bn="support", double=True)
    support_x, support_y, query_x = drawn_tasks(2, k_shot=3, double=True)
    order = torch.randperm(15, generator=torch_generator("order"))
    model = calibrated(learner)
    torch.testing.assert_close(
        model.predict(support_x[:, order], support_y[:, order], query_x),
        model.predict(support_x, support_y, query_x),
    )


def test_the_contrastive_loss_is_the_plain_one():
    generator = torch_generator("contrastive")
    real = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    pseudo = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    real_y, pseudo_y = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([0, 0, 1, 1])
    total = 0.0
    for x, label in zip(real, real_y, strict=True):
        logits = [float(F.cosine_similarity(x, p, dim=0)) / 0.2 for p in pseudo]
        norm = math.log(sum(math.exp(value) for value in logits))
        own = [norm - value for value, y in zip(logits, pseudo_y, strict=True) if y == label]
        total += sum(own) / len(own)
    found = contrastive_loss(real, real_y, pseudo, pseudo_y, 0.2)
    assert float(found) == pytest.approx(total / 6, rel=1e-12)


def test_the_contrastive_loss_by_hand():
    """One real feature, aligned with its class's pseudo feature, orthogonal to the other's."""
    loss = contrastive_loss(
        torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.eye(2) * 3, torch.tensor([0, 1]), 0.5
    )
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)))


def test_adam_is_torchs():
    start = torch.randn(7, generator=torch_generator("adam"), dtype=torch.float64)

    def loss(x):
        return ((x - torch.arange(7.0)) ** 4).sum()

    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(9):
        optimiser.zero_grad()
        loss(theirs).backward()
        optimiser.step()
    ours = adam_descent(loss, start, 9, 0.1)
    torch.testing.assert_close(ours - start, (theirs - start).detach(), rtol=1e-9, atol=1e-12)


def one_task(learner, k_shot=1, double=False):
    """Return adapted parameters, the support, and first pixels of one task."""
    support_x, support_y, _ = drawn_tasks(1, k_shot, double=double)
    params = dict(learner.net.named_parameters())
    adapted = learner.adapt(params, support_x[0], support_y[0])
    pixels = torch.randn(10, 3, 16, 16, generator=streams()(0)).to(support_x)
    return adapted, support_x[0], support_y[0], pixels


def test_inversion_lowers_its_loss_and_makes_the_adapted_model_see_the_labels():
    learner = gradient_learner()
    adapted, support_x, _, pixels = one_task(learner)
    config = IcfilConfig(inversion_steps=30)
    images = invert(learner, adapted, support_x, pixels, LABELS, config)

    def entropy(x):
        return float(F.cross_entropy(learner.logits(adapted, x, batch_norm), LABELS))

    assert entropy(images) < 0.5 * entropy(pixels)
    none = IcfilConfig(inversion_steps=0)
    assert torch.equal(invert(learner, adapted, support_x, pixels, LABELS, none), pixels)


def test_the_statistics_term_pulls_towards_the_real_support():
    learner = gradient_learner()
    adapted, support_x, _, pixels = one_task(learner, k_shot=2)
    config = {"inversion_steps": 25, "pixel_lr": 0.1}
    config |= {"cross_entropy_weight": 0, "tv_weight": 0, "l2_weight": 0}
    shifted = pixels + 2
    images = invert(learner, adapted, support_x, shifted, LABELS, IcfilConfig(**config))
    first = learner.net.convs[0]

    def distance(x):
        target, found = first(support_x), first(x)
        return float((target.mean((0, 2, 3)) - found.mean((0, 2, 3))).norm())

    assert distance(images) < 0.75 * distance(shifted)
    still = IcfilConfig(**config, bn_weight=0)
    assert torch.equal(invert(learner, adapted, support_x, shifted, LABELS, still), shifted)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_calibration_lowers_its_loss(name):
    learner = gradient_learner(name, double=True)
    adapted, support_x, support_y, pixels = one_task(learner, k_shot=3, double=True)
    config = IcfilConfig(lr=0.01, steps=10)
    images = invert(learner, adapted, support_x, pixels, LABELS, config)
    final = calibrate(learner, adapted, support_x, support_y, pixels, LABELS, config)
    loss = calibration_objective(learner, (support_x, support_y), (images, LABELS), config)
    assert float(loss(final)) < float(loss(adapted)) - 0.05


def test_each_loss_moves_its_own_part():
    learner = gradient_learner()
    adapted, support_x, support_y, pixels = one_task(learner)

    def moved(**weights):
        config = IcfilConfig(inversion_steps=1, steps=1, **weights)
        final = calibrate(learner, adapted, support_x, support_y, pixels, LABELS, config)
        return {name for name, value in final.items() if not torch.equal(value, adapted[name])}

    body = {name for name in adapted if not name.startswith("head.")}
    assert moved(contrastive_weight=0.0) == {"head.weight", "head.bias"}
    assert {n for n in body if n.endswith("weight")} <= moved(head_weight=0.0) <= body


def test_one_step_is_gradient_descent_on_detached_pseudo_images():
    """First-order gradients suffice: nothing is differentiated through the inversion."""
    learner = gradient_learner(double=True)
    adapted, support_x, support_y, pixels = one_task(learner, double=True)
    config = IcfilConfig(steps=1, inversion_steps=2)
    final = calibrate(learner, adapted, support_x, support_y, pixels, LABELS, config)
    images = invert(learner, adapted, support_x, pixels, LABELS, config).detach()
    loss = calibration_objective(learner, (support_x, support_y), (images, LABELS), config)
    gradient = grad(loss)(dict(adapted))
    for name, value in final.items():
        torch.testing.assert_close(value, adapted[name] - config.lr * gradient[name])


def test_it_refuses_what_it_cannot_follow_or_label():
    assert "no inner loop; use maml or anil" in Icfil.refuse(ProtoNet)
    assert Icfil.refuse(registry.load("learner", "centroids"))
    assert Icfil.refuse(registry.load("learner", "maml")) is None
    support_x, support_y, query_x = drawn_tasks()
    model = calibrated(gradient_learner())
    assert isinstance(model, CalibratedLearner)
    with pytest.raises(BenchError, match="lacks one of the classes"):
        model.predict(support_x[:, :3], support_y[:, 2:], query_x)
    with pytest.raises(BenchError, match="head has 3 outputs"):
        calibrated(gradient_learner(n_classes=3)).predict(support_x, support_y, query_x)


def test_fewer_classes_than_outputs_are_served():
    support_x, support_y, query_x = drawn_tasks(2)
    logits = calibrated(gradient_learner()).predict(support_x[:, :3], support_y[:, :3], query_x)
    assert logits.shape == (2, 15, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"steps": -1}, {"pixel_lr": 0}, {"pseudo_images_per_class": 0}]
)
def test_wrong_constants_are_refused(wrong):
    with pytest.raises(ValueError, match="greater than"):
        IcfilConfig(**wrong)


@pytest.mark.cuda
def test_a_gpu_agrees_with_the_cpu(cuda):
    learner, tasks = gradient_learner(double=True), drawn_tasks(double=True)
    here = calibrated(learner).predict(*tasks)
    learner.net.to(cuda)
    there = calibrated(learner).predict(*(value.to(cuda) for value in tasks))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-7)
