"""Merges by statistics, clusters and task vectors: against least squares and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from baselines.merging._activations import channel_moments, correlations
from baselines.merging._channels import (
    Axis,
)
from baselines.merging._layers import input_rows, layer_entries, layer_weight, watched_pass
from baselines.merging._pseudo_images import invert_teachers
from baselines.merging.dro import Dro, deviation_gram
from baselines.merging.fisher import diagonal_fisher, fisher_mean, scaled
from baselines.merging.regmean import RegMean, layer_grams, shrunk
from baselines.merging.task_arithmetic import TaskArithmetic
from baselines.merging.ties import Ties, ties_vector, trimmed
from baselines.merging.zipit import cluster, zipped
from bench.errors import BenchError
from bench.nets.norm import running_norm
from bench.training.initialisation import average_state
from tests.baselines.merging_pools import (
    assert_same,
    context_of,
    generator,
    with_start,
)
from tests.helpers import tiny_net, tiny_pool


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
        for teacher, (images, _) in zip(
            pool, invert_teachers(again, pool, again.config), strict=True
        ):
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
        context = context_of(Dro, pool, radius=radius, steps=200)
        Dro().fit(context)
        errors[radius] = context.log.curve("robust_error")[200]
    assert errors[0.0] < errors[0.3] < errors[1.0]
    assert errors[0.0] < 0.2 * errors[1.0]
    gram = deviation_gram([t.net.state_dict() for t in pool], ["convs.1.weight", "head.bias"])
    assert gram.trace().item() == pytest.approx(4)
    torch.testing.assert_close(gram.sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)
