"""Merges of weights: the properties that all have, and the barrier between teachers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.merging._barrier import POINTS, answers, interpolate, measure_barriers
from baselines.merging._channels import (
    Axis,
    channel_axes,
    permute,
)
from baselines.merging._matching import inner_products, layerwise_match
from baselines.merging._pseudo_images import InversionSettings
from baselines.merging.average import Average
from baselines.merging.c2m3 import C2M3
from baselines.merging.git_rebasin import GitRebasin, match_many
from baselines.merging.otfusion import OtFusion
from bench.contract import Pool
from bench.nets.norm import batch_norm
from bench.training.initialisation import average_state
from tests.baselines.merging_pools import (
    IDENTITY,
    INVERTING,
    MERGES,
    assert_same,
    context_of,
    generator,
    permuted_copies,
    with_start,
)
from tests.helpers import RecordingLog, tiny_context, tiny_net, tiny_pool


@pytest.mark.parametrize("method", [GitRebasin, OtFusion])
@pytest.mark.parametrize(("architecture", "n", "size"), [("conv4", 4, 32), ("resnet10", 2, 16)])
def test_permuted_copies_are_merged_back_exactly(method, architecture, n, size):
    pool = permuted_copies(architecture, n, size)
    fitted = method().fit(context_of(method, pool, size))
    assert_same(fitted, pool[0].net.state_dict(), rtol=0, atol=0)
    plain = Average().fit(context_of(Average, pool, size))
    assert not torch.allclose(plain["head.weight"], fitted["head.weight"])


def test_activations_recognise_permuted_copies_too():
    pool = permuted_copies("conv4", 3, 16)
    context = context_of(OtFusion, pool, ground="activations")
    assert_same(OtFusion().fit(context), pool[0].net.state_dict(), rtol=0, atol=0)
    assert OtFusion.knowledge_of(context.config) == "inversion"
    assert OtFusion.knowledge_of(OtFusion.Config()) == "parameters"
    assert context.log.counters["teacher_forward_images"] == 3 * 2 * 10 + 3 * 30


@pytest.mark.parametrize("method", MERGES)
def test_equal_teachers_merge_to_themselves(method):
    teacher = tiny_pool(("conv4",), 5, 16, generator(4))[0]
    pool = with_start(Pool([teacher] * 3, ""))
    fitted = method().fit(context_of(method, pool, **IDENTITY.get(method, {})))
    assert_same(fitted, teacher.net.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", MERGES)
def test_different_teachers_do_not_merge_to_one_of_them(method):
    pool = with_start(tiny_pool(("conv4",) * 3, 5, 16, generator(5)))
    fitted = method().fit(context_of(method, pool, head="average"))
    assert all(value.isfinite().all() for value in fitted.values())
    for teacher in pool:
        assert not torch.allclose(fitted["convs.1.weight"], teacher.net.convs[1].weight, atol=1e-3)


@pytest.mark.parametrize("method", MERGES)
@pytest.mark.parametrize("head", ["average", "zero", "drop"])
def test_heads_follow_the_policy(method, head):
    pool = with_start(tiny_pool(("conv4",) * 2, 5, 16, generator(6)))
    context = context_of(method, pool, head=head)
    fitted = method().fit(context)
    fresh = context.build_net(context.generator("initialisation")).head.weight
    assert torch.equal(fitted["head.weight"], fresh.detach()) == (head == "drop")
    assert bool((fitted["head.weight"] == 0).all()) == (head == "zero")


def test_the_largest_group_of_a_mixed_pool_is_merged_and_named():
    pool = tiny_pool(("resnet10", "conv4", "conv4"), 5, 16, generator(7))
    config = Average.Config(**Average.presets["largest_group"])
    context = tiny_context(Average, pool, config=config.model_dump())
    assert Average().skip(context) is None
    assert Average.needs_of(config) == frozenset()
    assert Average.needs_of(Average.Config()) == {"same_architecture"}
    expected = average_state([teacher.net.state_dict() for teacher in pool[1:]])
    assert_same(Average().fit(context), expected)
    assert "is a resnet10" in Average().skip(tiny_context(Average, pool))


def test_a_largest_group_that_does_not_fit_is_refused_and_of_equals_the_fitting_is_taken():
    pool = tiny_pool(("resnet10", "resnet10", "conv4"), 5, 16, generator(7))
    context = tiny_context(Average, pool, config={"group": "largest"})
    assert "is a resnet10" in Average().skip(context)
    equal = Pool(pool[1:], "")
    context = tiny_context(Average, equal, config={"group": "largest"})
    assert_same(Average().fit(context), pool[2].net.state_dict())


def test_merging_many_never_lowers_the_agreement():
    """The summed inner product of aligned networks is at least that of the layer-wise match."""
    pool = tiny_pool(("conv4",) * 4, 5, 16, generator(9))
    states = [t.net.state_dict() for t in pool]
    axes = channel_axes(pool[0])

    def agreement(aligned) -> float:
        names = [n for n, _ in pool[0].net.named_parameters() if not n.startswith("head.")]
        total = [sum(state[n].double() for state in aligned) for n in names]
        return sum(value.square().sum().item() for value in total)

    first = [states[0]] + [
        permute(s, axes, layerwise_match(states[0], s, axes, inner_products)) for s in states[1:]
    ]
    final = match_many(states, axes, 0, generator(), 50, 20)
    assert agreement(final) > agreement(first) > agreement(states)


def test_two_layers_by_hand():
    """Two channels swapped by hand are swapped back.

    The first layer of the other network is the reference's with its two rows exchanged; its next
    layer reads them exchanged. The only permutation that makes both agree is (1, 0).
    """
    axes = (Axis("one.weight", 0, "h"), Axis("two.weight", 1, "h"), Axis("two.weight", 0, "out"))
    a = {"one.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "two.weight": torch.eye(2)}
    b = {"one.weight": a["one.weight"].flip(0), "two.weight": a["two.weight"].flip(1)}
    found = layerwise_match(a, b, axes, inner_products)
    assert {k: v.tolist() for k, v in found.items()} == {"h": [1, 0], "out": [0, 1]}
    assert_same(permute(b, axes, found), a)


@pytest.mark.parametrize("method", MERGES)
def test_without_float64_a_merge_is_made_on_copies_on_the_cpu(method, monkeypatch):
    pool = with_start(tiny_pool(("conv4",) * 2, 5, 16, generator(6)))
    expected = method().fit(context_of(method, pool))
    merged = []

    def merge(self, context, teachers, whole=method.merge):
        merged.extend(teachers)
        return whole(self, context, teachers)

    monkeypatch.setattr(method, "merge", merge)
    for module in ("baselines.merging._merging", "bench.training.initialisation"):
        monkeypatch.setattr(f"{module}.has_float64", lambda device: False)
    assert_same(method().fit(context_of(method, pool)), expected, rtol=0, atol=0)
    assert not any(one.net is own.net for one, own in zip(merged, pool, strict=True))


@pytest.mark.cuda
@pytest.mark.parametrize("method", MERGES)
def test_merges_run_where_the_teachers_are(method, cuda):
    pool = with_start(tiny_pool(("conv4",) * 2, 5, 16, generator(2)))
    context = context_of(method, pool)
    expected = method().fit(context)
    for teacher in pool:
        teacher.net.to(cuda)
    moved = replace(
        context_of(method, pool), device=cuda, build_net=lambda g: context.build_net(g).to(cuda)
    )
    fitted = {name: value.cpu() for name, value in method().fit(moved).items()}
    if method not in INVERTING:  # pixels under Adam diverge between devices
        assert_same(fitted, expected, rtol=1e-3, atol=1e-4)


def shown_to(net, seed: int) -> tuple[Tensor, Tensor]:
    """Images, and what a network says of them when it normalises by the batch."""
    images = torch.randn(12, 3, 16, 16, generator=generator(seed))
    return images, net(images, batch_norm).argmax(1)


def test_no_barrier_lies_between_copies_once_they_are_matched():
    """The line between a network and its permuted copy is flat where the channels agree, and
    elsewhere it is not."""
    pool = permuted_copies("conv4", 3, 16)
    states = [dict(t.net.state_dict()) for t in pool]
    axes = channel_axes(pool[0])
    aligned = match_many(states, axes, 0, generator(), 100, 20)
    images = [shown_to(t.net, number) for number, t in enumerate(pool)]
    log = RecordingLog()
    net = tiny_net(generator(8))
    measure_barriers(log, net, {"matched": aligned, "unmatched": states}, images, 0)
    assert log.curve("barrier_matched")[50] == pytest.approx(0, abs=1e-4)
    assert log.curve("barrier_unmatched")[50] > 0.05
    flat = log.curve("interpolation_loss_matched")
    assert sorted(flat) == list(range(0, 101, 10))
    assert max(flat.values()) - min(flat.values()) < 1e-4
    assert set(log.curve("interpolation_accuracy_matched").values()) == {1.0}
    assert log.curve("merge_accuracy_matched") == {50: 1.0}
    assert log.curve("merge_loss_matched")[50] < log.curve("merge_loss_unmatched")[50]
    assert set(log.curve("pair_barrier_matched")) == {1, 2}


def test_interpolation_starts_and_ends_at_the_teachers_own_bodies():
    pool = tiny_pool(("conv4",) * 2, 5, 16, generator())
    states = [dict(t.net.state_dict()) for t in pool]
    images = [shown_to(t.net, number) for number, t in enumerate(pool)]
    net = tiny_net(generator(8))
    line = interpolate(net, *states, *images)
    assert len(line.losses) == len(line.accuracies) == POINTS
    own = [float(answers(net, s, s, one)[0]) for s, one in zip(states, images, strict=True)]
    expected = torch.nn.functional.cross_entropy(
        pool[0].net(images[0][0], batch_norm), images[0][1]
    )
    assert own[0] == pytest.approx(float(expected), rel=1e-4)
    assert line.own_loss == pytest.approx(sum(own) / 2)
    foreign = float(answers(net, states[0], states[1], images[1])[0])
    assert line.losses[0] == pytest.approx((own[0] + foreign) / 2, rel=1e-5)
    assert line.barrier == pytest.approx(line.losses[5] - line.own_loss)
    back = interpolate(net, states[1], states[0], images[1], images[0])
    np.testing.assert_allclose(back.losses, line.losses[::-1], rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "head"), [(GitRebasin, "average"), (GitRebasin, "zero"), (C2M3, "average")]
)
def test_measuring_the_barrier_changes_no_weight(method, head, monkeypatch):
    quick = InversionSettings(inversion_steps=2, images_per_class=2)
    monkeypatch.setattr("baselines.merging._matched.InversionSettings", lambda: quick)
    pool = tiny_pool(("conv4",) * 3, 5, 16, generator())
    fits, logs = [], []
    for measure in (False, True):
        config = {"head": head, "measure_barrier": measure}
        context = tiny_context(method, pool, config=config)
        fits.append(method().fit(context))
        logs.append(context.log)
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    measured = {"barrier_matched", "barrier_unmatched"}
    names = [{name for _, name, _ in log.points} for log in logs]
    assert not measured & names[0]
    assert measured <= names[1]
    assert logs[1].counters["pseudo_images"] == 3 * 2 * 10
    config = method.Config(measure_barrier=True)
    assert method.needs_of(config) == {"same_architecture", "bn_statistics"}
    assert "measure_barrier" not in method.Config().identity()
