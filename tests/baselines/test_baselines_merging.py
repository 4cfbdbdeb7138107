"""Merges of weights: their defining properties, and cases worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from baselines.merging._activations import channel_moments, correlations
from baselines.merging._barrier import POINTS, answers, interpolate, measure_barriers
from baselines.merging._channels import (
    Axis,
    channel_axes,
    group_sizes,
    permute,
)
from baselines.merging._layers import input_rows, layer_entries, layer_weight, watched_pass
from baselines.merging._matching import inner_products, layerwise_match
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from baselines.merging.average import Average
from baselines.merging.dro import Dro, deviation_gram
from baselines.merging.fisher import Fisher, diagonal_fisher, fisher_mean, scaled
from baselines.merging.git_rebasin import GitRebasin, match_many
from baselines.merging.otfusion import OtFusion
from baselines.merging.regmean import RegMean, layer_grams, shrunk
from baselines.merging.task_arithmetic import TaskArithmetic
from baselines.merging.ties import Ties, ties_vector, trimmed
from baselines.merging.zipit import ZipIt, cluster, zipped
from bench.contract import NetSpec, Pool
from bench.errors import BenchError
from bench.nets.norm import batch_norm, running_norm
from bench.training.initialisation import average_state
from tests.helpers import RecordingLog, tiny_context, tiny_net, tiny_pool

QUICK = {"inversion_steps": 2, "images_per_class": 2}
INVERTING = (Fisher, RegMean, ZipIt)
MERGES = (Average, GitRebasin, OtFusion, Dro, Ties, TaskArithmetic, *INVERTING)
IDENTITY = {
    ZipIt: {"head": "average"},
    Ties: {"density": 1.0},
    TaskArithmetic: {"scale": None},
}
"""Settings under which equal teachers merge to themselves, where the defaults mean otherwise."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_permutations(net, size: int, g: torch.Generator) -> dict[str, Tensor]:
    sizes = group_sizes(net.state_dict(), net.channel_axes(size))
    return {group: torch.randperm(n, generator=g) for group, n in sizes.items()}


def permuted_copies(architecture: str, n: int, size: int) -> Pool:
    """One network and copies of it with other channel orders; the first is the reference."""
    g = generator(3)
    pool = tiny_pool((architecture,) * n, 5, size, g, accuracies=[0.9] + [0.5] * (n - 1))
    state = {k: v.clone() for k, v in pool[0].net.state_dict().items()}
    for teacher in pool[1:]:
        order = drawn_permutations(teacher.net, size, g)
        teacher.net.load_state_dict(permute(state, teacher.net.channel_axes(size), order))
    return pool


def context_of(method, pool: Pool, size: int = 16, **config):
    quick = QUICK if "inversion_steps" in method.Config.model_fields else {}
    net = NetSpec(pool[0].spec.architecture, 5, size)
    return tiny_context(method, pool, net=net, config={**quick, **config})


def with_start(pool: Pool, seed: int = 8) -> Pool:
    start = tiny_net(generator(seed), pool[0].spec.architecture, 5, pool[0].spec.image_size)
    return Pool(pool.teachers, pool.sha256, {pool[0].spec: start.state_dict()})


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance)


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


def test_fisher_information_is_that_of_single_images():
    net = tiny_net(generator(), "resnet10", 4, 8).double()
    images = torch.randn(3, 3, 8, 8, generator=generator(1), dtype=torch.float64)
    params = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    expected = {name: torch.zeros_like(p) for name, p in params.items()}
    for image in images.split(1):
        log_p = functional_call(net, params, (image,)).log_softmax(1)[0]
        for label in range(4):
            gradients = torch.autograd.grad(log_p[label], list(params.values()), retain_graph=True)
            for total, gradient in zip(expected.values(), gradients, strict=True):
                total += log_p[label].detach().exp() * gradient.square() / 3
    found = diagonal_fisher(net, images)
    assert_same(found, {name: expected[name] for name in found}, rtol=1e-8, atol=1e-16)
    assert found.keys() == expected.keys()


def test_fisher_means():
    states = [
        {"w": torch.tensor([1.0, 1.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([4.0, 3.0]), "n": torch.tensor(3)},
    ]
    hand = fisher_mean(
        states, [{"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([1.0, 0.0])}], 0
    )
    assert hand["w"].tolist() == [2.0, 2.0]
    pool = tiny_pool(("conv4",) * 3, 5, 16, generator(2))
    states = [t.net.state_dict() for t in pool]
    same = {
        name: torch.rand(p.shape, generator=generator(3))
        for name, p in pool[0].net.named_parameters()
    }
    assert_same(fisher_mean(states, [same] * 3, 1e-6), average_state(states), rtol=1e-5, atol=1e-7)
    assert sum(v.sum() for v in scaled(same).values()) == pytest.approx(
        sum(v.numel() for v in same.values()), rel=1e-5
    )


@pytest.mark.parametrize("architecture", ["conv4", "resnet10"])
def test_layers_on_rows_are_the_layers(architecture):
    net = tiny_net(generator(), architecture, 5, 16)
    _, seen = watched_pass(net, torch.randn(2, 3, 16, 16, generator=generator(1)))
    assert set(seen) == {n for n, m in net.named_modules() if hasattr(m, "weight")}
    for name, one in seen.items():
        entries = layer_entries(name, one.layer, layer_weight(one.layer))
        assert_same(entries, {k: net.state_dict()[k].double() for k in entries})
        if not isinstance(one.layer, torch.nn.BatchNorm2d):
            rows = input_rows(one.layer, one.input).double() @ layer_weight(one.layer)
            expected = one.output.reshape(*one.output.shape[:2], -1).mT.double()
            torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    assert not any(m._forward_hooks for m in net.modules())


def test_regmean_solves_the_least_squares():
    """Without shrinkage a layer is numpy's least-squares fit to all teachers' outputs at once."""
    pool = tiny_pool(("conv4",) * 2, 5, 16, generator(2))
    context = context_of(RegMean, pool, off_diagonal=1.0, images_per_class=8)
    fitted = RegMean().fit(context)
    for name in ("convs.0", "head"):
        rows, targets = [], []
        again = context_of(RegMean, pool, images_per_class=8)
        for teacher, (images, _) in zip(pool, invert_teachers(again, pool), strict=True):
            one = watched_pass(teacher.net, images)[1][name]
            rows.append(input_rows(one.layer, one.input).flatten(0, 1).double())
            targets.append(rows[-1] @ layer_weight(one.layer))
        solution, *_ = np.linalg.lstsq(
            torch.cat(rows).numpy(), torch.cat(targets).numpy(), rcond=None
        )
        entries = layer_entries(name, pool[0].net.get_submodule(name), torch.from_numpy(solution))
        if name == "head":  # fewer samples than inputs: compare what is determined, the outputs
            found = torch.cat([fitted["head.weight"], fitted["head.bias"][:, None]], 1).T.double()
            outputs = torch.cat(rows) @ torch.from_numpy(solution)
            torch.testing.assert_close(torch.cat(rows) @ found, outputs, rtol=1e-2, atol=1e-2)
        else:
            for entry, value in entries.items():
                torch.testing.assert_close(fitted[entry].double(), value, rtol=1e-2, atol=1e-3)


def test_regmean_norms_by_hand():
    """y = 2 x from samples 1 and y = 4 x from samples 1, 1, without shifts: the slope is 10 / 3.

    Shrunk to the diagonal, shift and scale decouple, and each is weighed by its own size.
    """
    grams = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])]
    weights = [torch.tensor([[2.0], [0.0]]), torch.tensor([[4.0], [0.0]])]
    targets = sum(g @ w for g, w in zip(grams, weights, strict=True))
    assert torch.linalg.solve(sum(grams), targets)[0, 0].item() == pytest.approx(10 / 3)
    full = torch.tensor([[1.0, 0.5], [0.5, 2.0]])
    assert shrunk(full, 0.0).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert torch.equal(shrunk(full, 1.0), full)


def test_norm_inputs_are_normalised_by_the_teachers_own_statistics():
    net = tiny_net(generator(), "conv4", 5, 16)
    images = torch.randn(4, 3, 16, 16, generator=generator(1))
    gram = layer_grams(net, images)["norms.0"]
    x = net.convs[0](images)
    x = (x - net.norms[0].running_mean[:, None, None]) / (
        net.norms[0].running_var[:, None, None] + net.norms[0].eps
    ).sqrt()
    torch.testing.assert_close(
        gram[:, 0, 0].float(), x.square().sum((0, 2, 3)), rtol=1e-4, atol=1e-3
    )
    assert gram[:, 1, 1].tolist() == [4 * 256.0] * 32


def test_correlations_are_numpys():
    net = tiny_net(generator(), "conv4", 5, 16)
    images = torch.randn(6, 3, 16, 16, generator=generator(1))
    mean, second = channel_moments([net, net], images, net.channel_axes(16))["convs.0"]
    samples = running_norm(net.norms[0], net.convs[0](images)).detach()
    samples = samples.movedim(1, -1).flatten(0, 2)
    expected = np.corrcoef(torch.cat([samples, samples], 1).double().numpy(), rowvar=False)
    np.testing.assert_allclose(correlations(mean, second), expected, atol=1e-4)
    constant = correlations(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert constant.tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_clusters_by_hand():
    """See `cluster`: a ~ d at 0.9, then b ~ c at 0.8."""
    similarity = np.eye(4)
    for i, j, value in ((0, 3, 0.9), (1, 2, 0.8)):
        similarity[i, j] = similarity[j, i] = value
    assert cluster(similarity, 2, 1.0).tolist() == [0, 1, 1, 0]


def test_merges_within_a_teacher_are_rationed():
    """Channels of one teacher are much alike, equal numbers of different teachers a little."""
    similarity = np.kron(np.eye(2), np.full((4, 4), 0.9)) + np.kron(1 - np.eye(2), 0.1 * np.eye(4))
    free = cluster(similarity, 2, 1.0)
    assert set(free[:4]).isdisjoint(free[4:])
    tied = cluster(similarity, 2, 0.0)
    assert tied.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("n_teachers", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.125, 1.0])
def test_clusters_are_one_teachers_worth(n_teachers, share):
    samples = np.random.default_rng(0).normal(size=(50, 6 * n_teachers))
    found = cluster(np.corrcoef(samples, rowvar=False), n_teachers, share)
    assert sorted(set(found)) == list(range(6))
    assert [list(found).index(c) for c in range(6)] == sorted(
        list(found).index(c) for c in range(6)
    )


def test_zipped_network_by_hand():
    """Teacher 2 has the hidden channels of teacher 1 exchanged: hidden units are paired crosswise.

    One layer writes channels h from two inputs, the next reads them; with clusters {a, d} and
    {b, c} the merged rows are the means of the paired rows, the merged columns those of what reads
    either.
    """
    axes = (Axis("one.weight", 0, "h"), Axis("two.weight", 1, "h"))
    first = {
        "one.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "two.weight": torch.tensor([[1.0, 2.0]]),
    }
    second = {
        "one.weight": torch.tensor([[0.0, 3.0], [3.0, 0.0]]),
        "two.weight": torch.tensor([[4.0, 7.0]]),
    }
    merged = zipped([first, second], axes, {"h": np.array([0, 1, 1, 0])})
    assert merged["one.weight"].tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert merged["two.weight"].tolist() == [[4.0, 3.0]]  # means of (1, 7) and of (2, 4)


def test_task_vectors_by_hand():
    """See `ties_vector`."""
    vectors = torch.tensor([[3.0, -1.0, 2.0], [-2.0, -4.0, 1.0]], dtype=torch.float64)
    assert trimmed(vectors, 2 / 3).tolist() == [[3.0, 0.0, 2.0], [-2.0, -4.0, 0.0]]
    assert ties_vector(vectors, 2 / 3).tolist() == [3.0, -4.0, 2.0]
    # nothing trimmed: sums 1, -5, 3; means of those that agree 3, -2.5, 1.5
    assert ties_vector(vectors, 1.0).tolist() == [3.0, -2.5, 1.5]


def test_task_arithmetic_goes_from_the_start_along_the_sum():
    pool = with_start(tiny_pool(("conv4",) * 2, 5, 16, generator(2)))
    start = pool.initial_states[pool[0].spec]
    fitted = TaskArithmetic().fit(context_of(TaskArithmetic, pool, scale=0.25))
    for name in ("convs.2.weight", "head.bias"):
        sums = sum(t.net.state_dict()[name] - start[name] for t in pool)
        torch.testing.assert_close(fitted[name], start[name] + 0.25 * sums)
    mean = TaskArithmetic().fit(context_of(TaskArithmetic, pool, scale=None))
    assert_same(mean, average_state([t.net.state_dict() for t in pool]))


@pytest.mark.parametrize("method", [Ties, TaskArithmetic])
def test_task_vectors_need_a_shared_start(method):
    assert method.needs == {"same_architecture", "shared_initialisation"}
    pool = tiny_pool(("conv4",) * 2, 5, 16, generator(2))
    with pytest.raises(BenchError, match="no shared initialisation"):
        method().fit(context_of(method, pool))


def test_robust_fusion_learns_its_teachers_and_resists_moves():
    """Without an adversary the error vanishes; a wider ball leaves a larger one."""
    pool = tiny_pool(("conv4",) * 4, 5, 16, generator(2))
    errors = {}
    for radius in (0.0, 0.3, 1.0):
        context = context_of(Dro, pool, radius=radius)
        Dro().fit(context)
        errors[radius] = context.log.curve("robust_error")[200]
    assert errors[0.0] < errors[0.3] < errors[1.0]
    assert errors[0.0] < 0.2 * errors[1.0]
    gram = deviation_gram([t.net.state_dict() for t in pool], ["convs.1.weight", "head.bias"])
    assert gram.trace().item() == pytest.approx(4)
    torch.testing.assert_close(gram.sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)


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
    own = [answers(net, s, s, shown)[0] for s, shown in zip(states, images, strict=True)]
    expected = torch.nn.functional.cross_entropy(
        pool[0].net(images[0][0], batch_norm), images[0][1]
    )
    assert own[0] == pytest.approx(float(expected), rel=1e-4)
    assert line.own_loss == pytest.approx(sum(own) / 2)
    foreign = answers(net, states[0], states[1], images[1])[0]
    assert line.losses[0] == pytest.approx((own[0] + foreign) / 2, rel=1e-5)
    assert line.barrier == pytest.approx(line.losses[5] - line.own_loss)
    back = interpolate(net, states[1], states[0], images[1], images[0])
    np.testing.assert_allclose(back.losses, line.losses[::-1], rtol=1e-4)


@pytest.mark.parametrize("head", ["average", "zero"])
def test_measuring_the_barrier_changes_no_weight(head, monkeypatch):
    quick = InversionSettings(inversion_steps=2, images_per_class=2)
    monkeypatch.setattr("baselines.merging.git_rebasin.InversionSettings", lambda: quick)
    pool = tiny_pool(("conv4",) * 3, 5, 16, generator())
    fits, logs = [], []
    for measure in (False, True):
        config = {"head": head, "measure_barrier": measure}
        context = tiny_context(GitRebasin, pool, config=config)
        fits.append(GitRebasin().fit(context))
        logs.append(context.log)
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    assert not logs[0].points
    assert {"barrier_matched", "barrier_unmatched"} <= {name for _, name, _ in logs[1].points}
    assert logs[1].counters["pseudo_images"] == 3 * 2 * 10
    config = GitRebasin.Config(measure_barrier=True)
    assert GitRebasin.needs_of(config) == {"same_architecture", "bn_statistics"}
    assert "measure_barrier" not in GitRebasin.Config().identity()
