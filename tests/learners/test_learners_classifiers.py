"""Classifiers beside the nearest centroid, and what is done to embeddings before them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from bench.learners.centroids import centroid_logits, ridge_logits
from bench.learners.classifiers import (
    logistic_logits,
    on_support_statistics,
    voting,
    weighted_by_support,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def labels_of(n_tasks: int, n_way: int, k_shot: int) -> torch.Tensor:
    return torch.arange(n_way).repeat_interleave(k_shot).expand(n_tasks, -1)


@pytest.mark.parametrize(("k_shot", "penalty"), [(1, 0.1), (4, 0.01)])
def test_the_logistic_head_is_the_minimum_that_scipy_finds(k_shot, penalty):
    support, query, labels = draw(1, 3 * k_shot, 6), draw(1, 5, 6, seed=1), labels_of(1, 3, k_shot)
    found = logistic_logits(support, labels, query, 3, penalty)[0]
    centred = support[0] - support[0].mean(0)
    scale = centred.square().sum(1).mean().sqrt()
    x, y = centred / scale, labels[0]

    def objective(flat):
        w = torch.tensor(flat.reshape(3, 6), requires_grad=True)
        loss = F.cross_entropy(x @ w.T, y) + penalty / 2 * w.square().sum()
        loss.backward()
        return loss.item(), w.grad.numpy().ravel()

    best = minimize(objective, np.zeros(18), jac=True, tol=1e-12).x.reshape(3, 6)
    expected = (query[0] - support[0].mean(0)) / scale @ torch.tensor(best).T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("penalty", [0.01, 0.1])
def test_the_logistic_head_does_not_change_with_place_scale_or_the_names_of_classes(penalty):
    support, query, labels = draw(2, 15, 8), draw(2, 6, 8, seed=1), labels_of(2, 5, 3)
    logits = logistic_logits(support, labels, query, 5, penalty)
    moved = logistic_logits(7 * support + 3, labels, 7 * query + 3, 5, penalty)
    torch.testing.assert_close(moved, logits)
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = logistic_logits(support, order[labels], query, 5, penalty)
    torch.testing.assert_close(renamed[..., order], logits)
    single = logistic_logits(support[1:], labels[1:], query[1:], 5, penalty)
    torch.testing.assert_close(single[0], logits[1])


def test_equal_support_images_leave_the_logistic_head_undecided():
    support = torch.ones(1, 5, 4, dtype=torch.float64)
    logits = logistic_logits(support, labels_of(1, 5, 1), draw(1, 3, 4), 5, 0.1)
    torch.testing.assert_close(logits, torch.zeros_like(logits))


def test_centring_on_the_support_undoes_any_shift_of_all_images():
    classify = on_support_statistics(centroid_logits, whiten=False)
    support, query, labels = draw(2, 15, 8), draw(2, 6, 8, seed=1), labels_of(2, 5, 3)
    logits = classify(support, labels, query, 5)
    torch.testing.assert_close(classify(support + 9, labels, query + 9, 5), logits)
    assert not torch.allclose(centroid_logits(support, labels, query, 5), logits)
    # a distance between vectors of length 1
    assert float(logits.max()) <= 0
    assert float(logits.min()) >= -4


def test_whitening_on_the_support_undoes_any_scale_of_a_dimension_and_survives_a_constant_one():
    classify = on_support_statistics(centroid_logits, whiten=True)
    support, query, labels = draw(2, 15, 8), draw(2, 6, 8, seed=1), labels_of(2, 5, 3)
    scale = torch.arange(1.0, 9.0, dtype=torch.float64)
    logits = classify(support, labels, query, 5)
    torch.testing.assert_close(classify(support * scale, labels, query * scale, 5), logits)
    constant = torch.cat([support, torch.full((2, 15, 1), 3.0, dtype=torch.float64)], -1)
    longer = torch.cat([query, draw(2, 6, 1, seed=2)], -1)
    torch.testing.assert_close(classify(constant, labels, longer, 5), logits)


def test_a_block_weighs_by_how_far_apart_it_puts_the_classes():
    """By hand: two classes at ±1 in the first block, their pair distance² 4 over mean square 1; in
    the second both at (1, ±1/2), 1 over 1.25. The weights are 4 and 0.8; the third block tells
    nothing and weighs nothing."""
    support = torch.tensor([[[1.0, 1.0, 0.5, 2.0], [-1.0, 1.0, -0.5, 2.0]]])
    labels, seen = torch.tensor([[0, 1]]), []

    def look(support_e, support_y, query_e, n_way):
        seen.extend([support_e, query_e])
        return centroid_logits(support_e, support_y, query_e, n_way)

    query = torch.ones(1, 3, 4)
    weighted_by_support(look, (1, 2, 1), 1.0)(support, labels, query, 2)
    weights = torch.tensor([4.0, 0.8, 0.8, 0.0])
    torch.testing.assert_close(seen[0], support * weights)
    torch.testing.assert_close(seen[1], query * weights)


def test_power_zero_and_alike_blocks_leave_the_prediction():
    support, query, labels = draw(2, 15, 4), draw(2, 6, 4, seed=1), labels_of(2, 5, 3)
    plain = ridge_logits(support, labels, query, 5, 1.0)
    ridge = partial(ridge_logits, penalty=1.0)
    none = weighted_by_support(ridge, (3, 1), 0.0)(support, labels, query, 5)
    torch.testing.assert_close(none, plain)
    twice = [torch.cat([x, x], -1) for x in (support, query)]
    alike = weighted_by_support(ridge, (4, 4), 2.0)(twice[0], labels, twice[1], 5)
    torch.testing.assert_close(alike, plain)


def test_a_vote_of_one_decides_as_that_one_and_scale_gives_no_weight():
    support, labels, query = draw(3, 10, 8), labels_of(3, 5, 2), draw(3, 15, 8, seed=1)
    alone = centroid_logits(support, labels, query, 5)
    assert voting((centroid_logits,))(support, labels, query, 5).argmax(-1).equal(alone.argmax(-1))

    def louder(*task):
        return 1000 * ridge_logits(*task, 1.0) + 7

    both = voting((centroid_logits, partial(ridge_logits, penalty=1.0)))
    torch.testing.assert_close(
        voting((centroid_logits, louder))(support, labels, query, 5),
        both(support, labels, query, 5),
        atol=1e-4,
        rtol=1e-4,
    )


def test_a_vote_is_the_mean_of_standard_scores_and_sees_one_query_at_a_time():
    support, labels, query = draw(3, 10, 8), labels_of(3, 5, 2), draw(3, 15, 8, seed=1)
    logits = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]], dtype=torch.float64)
    mirrored = voting((lambda *_: logits, lambda *_: -logits))
    torch.testing.assert_close(mirrored(support, labels, query, 5), torch.zeros_like(logits))
    alone = voting((lambda *_: logits,))(support, labels, query, 5)
    torch.testing.assert_close(alone.flatten(), torch.tensor([-2.0, -1, 0, 1, 2]).double() / 2**0.5)
    both = voting((centroid_logits, partial(ridge_logits, penalty=1.0)))
    torch.testing.assert_close(
        both(support, labels, query[..., :1, :], 5), both(support, labels, query, 5)[..., :1, :]
    )
