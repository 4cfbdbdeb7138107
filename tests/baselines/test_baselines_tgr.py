"""TGR: its groups of teachers, its regulariser, and which teachers a fit visits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.recovery import tgr
from baselines.recovery._gradient_variance import displaced_gradient
from baselines.recovery._task_groups import feature_similarity, similar_groups, spectral_groups
from baselines.recovery.tgr import Tgr
from bench.contract import Pool
from tests.baselines.recovery_fits import context_of, conv_pool, seeded
from tests.helpers import tiny_pool

A, B, C, X = 2.0, 3.0, 1.5, 4.0


def quadratics():
    """Return ½ax² and ½b(x - c)², whose gradients are ax and b(x - c)."""
    return [lambda p: 0.5 * A * p["x"] ** 2, lambda p: 0.5 * B * (p["x"] - C) ** 2]


def test_the_displaced_gradient_by_hand():
    """With g₁ = ax, g₂ = b(x - c) and half their difference d = (g₂ - g₁)/2, loss 1 is met at
    x - λd and loss 2 at x + λd, where d' = (b - a)/2: the gradient of their mean is
    ½[a(x - λd)(1 - λd') + b(x + λd - c)(1 + λd')]."""
    g1, g2, lr = A * X, B * (X - C), 0.1
    d, slope = (g2 - g1) / 2, (B - A) / 2
    params = {"x": torch.tensor(X, dtype=torch.float64)}
    found = displaced_gradient(params, quadratics(), lr)
    by_hand = (A * (X - lr * d) * (1 - lr * slope) + B * (X + lr * d - C) * (1 + lr * slope)) / 2
    assert float(found.gradient["x"]) == pytest.approx(by_hand, rel=1e-12)
    assert [float(loss) for loss in found.losses] == pytest.approx([16.0, 9.375])
    assert float(found.variance) == pytest.approx(d**2)
    assert float(params["x"]) == X
    assert not params["x"].requires_grad


def test_to_first_order_it_penalises_the_variance_of_the_gradients():
    """mean‖gᵢ - ḡ‖² = d², whose gradient is 2dd'; the rest is of second order in λ."""
    d, slope = (B * (X - C) - A * X) / 2, (B - A) / 2
    params = {"x": torch.tensor(X, dtype=torch.float64)}
    plain = displaced_gradient(params, quadratics(), 0.0).gradient["x"]
    assert float(plain) == pytest.approx((A * X + B * (X - C)) / 2, rel=1e-12)
    for lr in (1e-3, 1e-4):
        moved = displaced_gradient(params, quadratics(), lr).gradient["x"]
        assert float((moved - plain) / lr) == pytest.approx(2 * d * slope, abs=2 * lr)


def test_one_loss_alone_is_not_displaced_and_parameters_without_part_get_zeros():
    params = {"x": torch.tensor(X), "y": torch.ones(2)}
    found = displaced_gradient(params, quadratics()[:1], 0.5)
    assert float(found.gradient["x"]) == pytest.approx(A * X)
    assert torch.equal(found.gradient["y"], torch.zeros(2))
    assert float(found.variance) == 0


def normalised_cut(affinity: np.ndarray, groups: list[list[int]]) -> float:
    inside = [affinity[np.ix_(group, group)].sum() / affinity[group].sum() for group in groups]
    return len(groups) - sum(inside)


def test_groups_of_four_by_hand():
    """Teachers 0 and 1 are alike, and 2 and 3; 0 is least like 2, and 1 least like 3. Of the three
    ways to halve them, alike ones together cut least of the similarity, 0 with 2 and 1 with 3
    least of the dissimilarity: 1 of each side's 3, where the others cut 2 and 3."""
    similarity = 1 - np.array(
        [[0, 0, 1, 0.5], [0, 0, 0.5, 1], [1, 0.5, 0, 0], [0.5, 1, 0, 0]], dtype=float
    )
    assert similar_groups(similarity, "alike", 2, seeded()) == [[0, 1], [2, 3]]
    unlike = similar_groups(similarity, "unlike", 2, seeded())
    assert unlike == [[0, 2], [1, 3]]
    dissimilarity = 1 - similarity
    assert normalised_cut(dissimilarity, unlike) == pytest.approx(2 / 3)
    assert normalised_cut(dissimilarity, [[0, 3], [1, 2]]) == pytest.approx(4 / 3)
    assert normalised_cut(dissimilarity, [[0, 1], [2, 3]]) == pytest.approx(2)


def test_planted_groups_are_found_whatever_the_order_and_the_seed():
    planted = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    of = {i: number for number, group in enumerate(planted) for i in group}
    noise = torch.rand(9, 9, generator=seeded(), dtype=torch.float64).numpy() / 5
    affinity = np.array([[0.8 * (of[i] == of[j]) for j in range(9)] for i in range(9)])
    affinity = affinity + (noise + noise.T) / 2
    assert [spectral_groups(affinity, 3, seeded(seed)) for seed in range(4)] == [planted] * 4
    for seed in range(3):
        order = torch.randperm(9, generator=seeded(seed)).tolist()
        found = spectral_groups(affinity[np.ix_(order, order)], 3, seeded())
        assert sorted(sorted(order[i] for i in group) for group in found) == planted


def test_teachers_that_cannot_be_told_apart_make_fewer_groups():
    assert spectral_groups(np.ones((1, 1)), 1, seeded()) == [[0]]
    flat = [i for group in spectral_groups(np.zeros((4, 4)), 2, seeded()) for i in group]
    assert sorted(flat) == [0, 1, 2, 3]


def test_random_groups_are_equally_large_and_another_draw_gives_others():
    groups = similar_groups(np.eye(11), "random", 4, seeded())
    assert sorted(map(len, groups)) == [2, 3, 3, 3]
    assert sorted(i for group in groups for i in group) == list(range(11))
    assert similar_groups(np.eye(11), "random", 4, seeded(1)) != groups


def test_similarity_is_that_of_features_for_teachers_of_any_kind_and_size():
    pool = tiny_pool(("conv4", "resnet10"), 5, 16, seeded())
    other = tiny_pool(("conv4",), 5, 24, seeded(1))
    images = torch.randn(40, 3, 16, 16, generator=seeded())
    found = feature_similarity([*pool, pool[0], *other], images)
    assert found.shape == (4, 4)
    assert found[0, 2] == pytest.approx(1.0)
    assert np.array_equal(found, found.T)
    assert 0 <= found.min() <= found.max() <= 1 + 1e-12
    assert found[0, 1] < 0.95


def fitted(pool: Pool, **changes):
    context = context_of(Tgr, pool, **changes)
    return Tgr().fit(context), context.log


@pytest.mark.parametrize("grouping", ["unlike", "alike", "random"])
def test_a_fit_notes_its_groups_of_all_teachers(grouping):
    _, log = fitted(conv_pool(5), config={"grouping": grouping, "n_groups": 5})
    groups = log.extras["task_groups"]
    assert 1 <= len(groups) <= 2  # at most half as many as teachers
    assert sorted(name for group in groups for name in group) == [f"tiny/0{i}" for i in range(5)]


def test_the_grouping_and_the_displacement_change_the_fit():
    fits = [
        fitted(conv_pool(5), config=config)[0]["convs.0.weight"]
        for config in ({}, {"grouping": "alike"}, {"displacement": 0.5})
    ]
    assert not torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_the_published_scope_leaves_out_the_teachers_behind_the_hundredth(monkeypatch):
    """Hazard H23, with 2 in place of 100: a pool of two architectures whose first teachers all
    have the first one trains on that one alone, and the record says so."""
    monkeypatch.setattr(tgr, "FIRST", 2)
    pool = tiny_pool(("conv4", "conv4", "resnet10", "resnet10"), 5, 16, seeded())
    config = dict(Tgr.presets["as_published"])
    _, log = fitted(pool, config=config)
    assert log.extras["task_groups"] == [["tiny/00", "tiny/01"]]
    assert Tgr().notes(context_of(Tgr, pool, config=config)) == (
        "similarity_scope=first_100: the last 2 teachers were never visited",
    )
    assert Tgr().notes(context_of(Tgr, pool)) == ()


def test_a_fit_that_is_interrupted_while_it_looks_at_the_teachers_goes_on_bit_by_bit():
    states = []

    def save(step, state):
        states.append(state)

    whole, _ = fitted(conv_pool(5), save=save)
    early = next(one for one in states if len(one["source"]["shown"]) == 2)
    assert early["source"]["groups"] is None
    continued, _ = fitted(conv_pool(5), resume=early)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
