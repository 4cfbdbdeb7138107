"""PURER beside a classifier of all pseudo classes, and from the fits of other methods."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from bench.contract import Pool
from bench.errors import BenchError
from bench.nets.norm import batch_norm
from purer.config import PurerConfig
from purer.dynamic_dataset import DynamicDataset
from purer.method import Purer
from purer.presets import COMPARED, STARTS, TUNED_PROTONET
from purer.pseudo_classes import ClassifyingLearner, PseudoClasses
from tests.helpers import Saves, tiny_context, tiny_net, tiny_pool, tiny_tasks

QUICK = {"pixel_warmup": 1, "class_batch": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool() -> Pool:
    return tiny_pool(["conv4", "conv4"], 5, 16, generator())


def context_of(learner: str = "protonet", config=(), **changes):
    settings = {**QUICK, **dict(config)}
    budget = {"meta_iterations": 3}
    return tiny_context(Purer, pool(), learner=learner, config=settings, budget=budget, **changes)


def classes_of(**config) -> tuple[PseudoClasses, DynamicDataset, torch.nn.Module]:
    context = context_of(config={"class_weight": 1.0, **config})
    dataset = DynamicDataset(context.pool, 3, context.generator("pseudo images"))
    net = context.build_net(context.generator("initialisation"))
    return PseudoClasses(context, dataset, net), dataset, net


def test_the_head_starts_at_zero_and_its_gradient_is_that_by_hand():
    """At zero all ten classes are equally likely: the loss is log 10, no feature has a gradient,
    and the weights' gradient is (1/10 - onehot)ᵀ features / images."""
    classes, dataset, net = classes_of(class_batch=8)
    loss = classes.loss()
    assert loss.item() == pytest.approx(math.log(10), rel=1e-6)
    loss.backward()
    rows = torch.randint(30, (8,), generator=context_of().generator("pseudo class images"))
    with torch.no_grad():
        features = net.features(dataset.images.flatten(0, 1)[rows], batch_norm)
    wanted = (0.1 - F.one_hot(rows // 3, 10).float()).T @ features / 8
    torch.testing.assert_close(classes.head["weight"].grad, wanted, rtol=1e-4, atol=1e-6)
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)
    assert dataset.images.grad is None
    classes.step()
    assert classes.head["weight"].detach().any()


def test_the_head_learns_the_pseudo_images_by_itself():
    classes, _, _ = classes_of(class_batch=30)
    losses = []
    for _ in range(30):
        loss = classes.loss()
        loss.backward()
        classes.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("task_weight", [0.0, 2.0])
def test_the_outer_loss_is_the_weighted_sum(task_weight):
    classes, _, net = classes_of()
    classes.loss().backward()
    classes.step()  # else features have no gradient
    learner = context_of().training_learner(net)
    params, tasks = dict(net.named_parameters()), tiny_tasks(generator(1))

    def gradient(weights, state):
        classes.load_state_dict(state)
        net.zero_grad()
        classifying = ClassifyingLearner(learner, classes, *weights)
        losses, logits = classifying.outer_loss(params, tasks)
        losses.sum().backward()
        return net.convs[0].weight.grad.clone(), logits

    state = classes.state_dict()
    both, logits = gradient((task_weight, 3.0), state)
    alone, _ = gradient((0.0, 1.0), state)
    losses, plain_logits = learner.outer_loss(params, tasks)
    net.zero_grad()
    losses.sum().backward()
    expected = task_weight * net.convs[0].weight.grad + 3 * alone
    torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(logits, plain_logits)


def test_at_least_one_loss_is_asked_for():
    with pytest.raises(ValidationError, match="task_weight and class_weight are both 0"):
        PurerConfig(task_weight=0)


def test_a_fit_with_classes_differs_and_goes_on_bit_by_bit():
    config = {"class_weight": 1.0}
    plain = Purer().fit(context_of())
    saves = Saves()
    context = context_of(config=config, save=saves)
    whole = Purer().fit(context)
    assert not torch.equal(plain["convs.0.weight"], whole["convs.0.weight"])
    assert set(context.log.curve("class_loss")) == {1, 2, 3}
    middle = saves.states[saves.steps.index(1)]
    continued = Purer().fit(context_of(config=config, resume=middle))
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_without_classes_nothing_of_them_is_saved():
    saves = Saves()
    Purer().fit(context_of(save=saves))
    assert "classes" not in saves.states[-1]["source"]


def started(start: str, fitted) -> dict[str, torch.Tensor]:
    """Return the fit from another method's, where the first of all states is the best."""
    scores = iter([0.9, 0.1, 0.1])
    context = context_of(
        config={"other_fit": start, **QUICK}, validate=lambda learner: next(scores)
    )
    asked = []

    def other_fit(method, preset="released"):
        asked.append((method, preset))
        return fitted

    found = Purer().fit(replace(context, other_fit=other_fit))
    assert asked == [(start, "released")]
    return found


def test_training_starts_from_the_student_or_from_the_network_with_random_colours():
    state = tiny_net(generator(9)).state_dict()
    found = started("distill_ensemble", state)
    assert all(torch.equal(found[name], value) for name, value in state.items())
    other = tiny_net(generator(8)).state_dict()
    both = {f"0.{k}": v for k, v in state.items()} | {f"1.{k}": v for k, v in other.items()}
    found = started("cross_teacher", both)
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_context_without_other_fits_says_so():
    with pytest.raises(BenchError, match=r"no fit of 'distill_ensemble \(released\)'"):
        Purer().fit(context_of(config={"other_fit": "distill_ensemble"}))


def test_the_compared_presets_differ_in_start_and_losses_alone():
    assert len(COMPARED) == 9
    starting = ("initialisation", "other_fit")
    shared = [
        {k: v for k, v in values.items() if k not in (*starting, "class_weight")}
        for name, values in COMPARED.items()
        if not name.endswith("_only")
    ]
    assert all(one == shared[0] for one in shared)
    for name, start in STARTS.items():
        plain, only = COMPARED[name], COMPARED[f"{name}_classes_only"]
        assert {k: plain[k] for k in starting if k in plain} == start
        assert only == {**plain, "class_weight": 1.0, "task_weight": 0.0}
        assert PurerConfig(**only).pixel_warmup == TUNED_PROTONET["pixel_warmup"]
