"""C2M3 and PLeaS: the agreement of many networks, and layers fitted to mean activations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.merging._barrier import measure_merges
from baselines.merging._channels import permute
from baselines.merging._layers import output_rows, sample_rows, watched_pass
from baselines.merging._universe import Agreement, universe_match
from baselines.merging.c2m3 import C2M3
from baselines.merging.pleas import Pleas, least_squares, matched_to
from bench.contract import Pool
from bench.nets.norm import batch_norm
from tests.baselines.merging_pools import assert_same, context_of, generator, permuted_copies
from tests.helpers import RecordingLog, tiny_context, tiny_pool

SIZE = 16


@pytest.fixture(scope="module")
def pool() -> Pool:
    return tiny_pool(("conv4",) * 3, 5, SIZE, generator(5), accuracies=[0.5, 0.9, 0.6])


def states_of(pool: Pool) -> list[dict[str, Tensor]]:
    return [teacher.net.state_dict() for teacher in pool]


def test_slopes_are_the_derivative_of_the_agreement(pool: Pool) -> None:
    agreement = Agreement(states_of(pool), pool[0].net.channel_axes(SIZE))
    g = generator(2)
    maps, ways = (
        {name: torch.rand(one.shape, generator=g).double() for name, one in start.items()}
        for start in (agreement.identities(), agreement.identities())
    )
    slope = sum(float((agreement.slopes(maps)[name] * ways[name]).sum()) for name in maps)
    step = 1e-5

    def along(share: float) -> float:
        return agreement.of({name: one + share * ways[name] for name, one in maps.items()})

    assert slope == pytest.approx((along(step) - along(-step)) / (2 * step), rel=1e-6)


def test_the_agreement_is_that_of_all_pairs(pool: Pool) -> None:
    axes = pool[0].net.channel_axes(SIZE)
    states = states_of(pool)
    agreement = Agreement(states, axes)
    voting = [n for n in states[0] if n.startswith(("convs", "norms")) and "running" not in n]
    rows = [
        torch.cat([state[n].flatten().double() for n in voting if state[n].is_floating_point()])
        for state in states
    ]
    expected = sum(float(rows[a] @ rows[b]) for a in range(3) for b in range(a))
    assert agreement.of(agreement.identities()) == pytest.approx(expected)


def test_the_search_climbs_and_the_order_of_teachers_does_not_matter(pool: Pool) -> None:
    axes, states = pool[0].net.channel_axes(SIZE), states_of(pool)
    found, reached = universe_match(states, axes, max_steps=3, patience=5)
    assert len(reached) > 2
    assert all(b > a for a, b in pairwise(reached))
    turned, _ = universe_match(states[::-1], axes, max_steps=3, patience=5)
    for one, other in zip(found, turned[::-1], strict=True):
        assert all(torch.equal(one[group], other[group]) for group in one)
        assert all(sorted(order.tolist()) == list(range(len(order))) for order in one.values())
    moved = Agreement([permute(s, axes, one) for s, one in zip(states, found, strict=True)], axes)
    assert moved.of(moved.identities()) > reached[0]


def test_c2m3_permutes_functions_only(pool: Pool) -> None:
    context = context_of(C2M3, pool, SIZE, max_steps=3)
    aligned = C2M3().align(context, states_of(pool), pool[0].net.channel_axes(SIZE), 0)
    images = torch.randn(4, 3, SIZE, SIZE, generator=generator(6))
    for teacher, state in zip(pool, aligned, strict=True):
        expected = teacher.net(images)
        found = torch.func.functional_call(teacher.net, state, (images,))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_pleas_takes_permuted_copies_back() -> None:
    copies = permuted_copies("conv4", 3, SIZE)
    fitted = Pleas().fit(context_of(Pleas, copies, SIZE))
    assert_same(fitted, copies[0].net.state_dict(), rtol=1e-4, atol=1e-5)


def test_pleas_solves_the_least_squares_of_mean_activations(pool: Pool) -> None:
    nets = [teacher.net for teacher in pool]
    images = torch.randn(40, 3, SIZE, SIZE, generator=generator(7))
    found = least_squares(nets, states_of(pool), images)
    seen = [watched_pass(net, images)[1]["convs.1"] for net in nets]
    inputs = torch.stack([sample_rows(one) for one in seen]).mean(0).double().numpy()
    outputs = torch.stack([output_rows(one) for one in seen]).mean(0).double().numpy()
    solution = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    weight = found["convs.1.weight"].flatten(1).T.double().numpy()
    best = np.square(outputs - inputs @ solution).mean()
    bias = found["convs.1.bias"].double().numpy()
    reached = np.square(outputs - inputs[:, :-1] @ weight - bias).mean()
    assert reached == pytest.approx(best, rel=1e-2)
    plain = torch.stack([net.state_dict()["convs.1.weight"] for net in nets]).mean(0)
    mean_bias = torch.stack([net.state_dict()["convs.1.bias"] for net in nets]).mean(0)
    averaged = inputs[:, :-1] @ plain.flatten(1).T.double().numpy() + mean_bias.double().numpy()
    assert reached < 0.9 * np.square(outputs - averaged).mean()


def test_the_barrier_of_a_merge_of_copies_is_zero() -> None:
    copies = permuted_copies("conv4", 3, SIZE)
    axes, states = copies[0].net.channel_axes(SIZE), states_of(copies)
    aligned = matched_to(states, axes, 0, generator(), 5)
    log, net = RecordingLog(), copies[0].net
    shown = torch.randn(30, 3, SIZE, SIZE, generator=generator(9))
    images = [(shown, net(shown, batch_norm).argmax(1))] * 3
    kinds = {"unmatched": states, "matched": aligned}
    measure_merges(log, net, kinds, lambda some, _: some[0], images, 0)
    assert log.curve("barrier_merged")[50] == pytest.approx(0, abs=1e-5)
    assert log.curve("barrier_unmatched")[50] > 0.05
    assert log.curve("merge_accuracy_merged") == {50: 1.0}
    assert set(log.curve("pair_barrier_merged")) == {1, 2}
    assert log.curve("merge_loss_merged")[50] < log.curve("merge_loss_unmatched")[50]


def test_measuring_the_barrier_changes_no_weight_of_pleas(pool: Pool) -> None:
    quick = {"inversion_steps": 2, "images_per_class": 2}
    fits, logs = [], []
    for measure in (False, True):
        context = tiny_context(Pleas, pool, config={**quick, "measure_barrier": measure})
        fits.append(Pleas().fit(context))
        logs.append(context.log)
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    kinds = {f"barrier_{kind}" for kind in ("unmatched", "matched", "merged")}
    names = [{name for _, name, _ in log.points} for log in logs]
    assert not kinds & names[0]
    assert kinds <= names[1]
    assert "measure_barrier" not in Pleas.Config().identity()
