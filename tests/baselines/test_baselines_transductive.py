"""Transductive heads against their equations, task by task in numpy, and on learners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from baselines.transductive._head import reduced
from baselines.transductive.alpha_tim import AlphaTim, AlphaTimConfig, alpha_tim_logits, tsallis
from baselines.transductive.bd_cspn import bd_cspn_logits
from baselines.transductive.label_propagation import propagated_logits
from baselines.transductive.pt_map import PtMap, PtMapConfig, log_transport, pt_map_logits
from baselines.transductive.soft_kmeans import SoftKMeans, soft_kmeans_logits
from bench.contract import EmbeddingLearner
from bench.learners.base import LearnerSettings
from bench.learners.centroids import Centroids, centroid_logits
from bench.learners.maml import Maml
from bench.learners.protonet import ProtoNet
from bench.testing.rules import some_tasks
from bench.testing.tiny import tiny_net

WAYS, SHOTS, QUERIES, DIMENSIONS = 3, 2, 4, 40


@pytest.fixture
def tasks():
    """Embeddings and labels of two tasks; more dimensions than rows."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, WAYS, DIMENSIONS, generator=generator).double()

    def rows(labels):
        noise = torch.randn(2, len(labels), DIMENSIONS, generator=generator).double()
        return centres[:, labels] + 2.5 * noise

    support_y = torch.arange(WAYS).repeat(SHOTS)
    query_y = torch.arange(WAYS).repeat_interleave(QUERIES)
    return rows(support_y), support_y.expand(2, -1), rows(query_y)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def distances(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def means_of(rows, labels):
    return np.stack([rows[labels == c].mean(0) for c in range(WAYS)])


def each(tasks):
    """Yield support, labels and queries of each task as arrays."""
    for one in zip(*tasks, strict=True):
        yield [part.numpy() for part in one]


def assert_shares(found, expected):
    """Compare what logits say of the classes, as distributions."""
    np.testing.assert_allclose(softmax(found, -1), softmax(expected, -1), atol=1e-6)


def test_reduced_rows_have_the_same_products(tasks):
    support, query = reduced(tasks[0], tasks[2])
    assert support.shape[-1] == WAYS * (SHOTS + QUERIES)
    before, after = torch.cat([tasks[0], tasks[2]], 1), torch.cat([support, query], 1)
    torch.testing.assert_close(after @ after.mT, before @ before.mT)
    assert reduced(support[..., :5], query[..., :5])[0].shape[-1] == 5


def test_soft_kmeans(tasks):
    found = soft_kmeans_logits(*tasks, WAYS, steps=7, sharpness=5.0)
    for (support, labels, query), logits in zip(each(tasks), found.numpy(), strict=True):
        mean = np.concatenate([support, query]).mean(0)
        support, query = unit(support - mean), unit(query - mean)
        means = means_of(support, labels)
        for _ in range(7):
            p = softmax(-5 * distances(query, means), -1)
            means = np.stack(
                [
                    (support[labels == c].sum(0) + p[:, c] @ query) / (SHOTS + p[:, c].sum())
                    for c in range(WAYS)
                ]
            )
        np.testing.assert_allclose(logits, -5 * distances(query, means), atol=1e-8)


def test_soft_kmeans_without_rounds_is_the_nearest_centroid(tasks):
    found = soft_kmeans_logits(*tasks, WAYS, steps=0, sharpness=1.0)
    mean = torch.cat([tasks[0], tasks[2]], 1).mean(1, keepdim=True)
    rows = [torch.nn.functional.normalize(x - mean, dim=-1) for x in (tasks[0], tasks[2])]
    torch.testing.assert_close(found, centroid_logits(rows[0], tasks[1], rows[1], WAYS))


def test_bd_cspn(tasks):
    found = bd_cspn_logits(*tasks, WAYS, scale=10.0)
    for (support, labels, query), logits in zip(each(tasks), found.numpy(), strict=True):
        moved = query + support.mean(0) - query.mean(0)
        rows = unit(np.concatenate([support, moved]))
        first = 10 * rows @ unit(means_of(support, labels)).T
        joined = np.concatenate([labels, first[len(labels) :].argmax(1)])
        weights = softmax(first, -1)
        prototypes = [
            (weights[joined == c, c, None] * rows[joined == c]).sum(0) for c in range(WAYS)
        ]
        expected = 10 * rows[len(labels) :] @ unit(np.stack(prototypes)).T
        np.testing.assert_allclose(logits, expected, atol=1e-8)


def solved_transport(scores):
    """Solve entropic transport to equal columns through its convex dual."""
    share = len(scores) / scores.shape[1]

    def dual(g):
        values = scores + g
        gradient = softmax(values, -1).sum(0) - share
        return logsumexp(values, -1).sum() - share * g.sum(), gradient

    g = minimize(dual, np.zeros(scores.shape[1]), jac=True, method="BFGS", tol=1e-12).x
    return softmax(scores + g, -1)


def test_sinkhorn_is_the_solution_of_entropic_transport():
    scores = 4 * torch.randn(5, 12, 3, generator=torch.Generator().manual_seed(1)).double()
    found = log_transport(scores, 200).exp().numpy()
    for one, plan in zip(scores.numpy(), found, strict=True):
        np.testing.assert_allclose(plan, solved_transport(one), atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(found.sum(-2), 4, atol=1e-6)


def test_each_round_of_sinkhorn_scales_columns_then_rows_also_of_far_scores():
    scores = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2)).double()
    scores[1] *= 200  # exponentials between 1e-200 and 1e200
    for rounds in range(4):
        expected = scores.numpy()
        for _ in range(rounds):
            expected = expected - logsumexp(expected, -2, keepdims=True) + np.log(2)
            expected = expected - logsumexp(expected, -1, keepdims=True)
        if rounds == 0:
            expected = expected - expected.max((-2, -1), keepdims=True)
        np.testing.assert_allclose(log_transport(scores, rounds).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("balanced", [True, False])
def test_pt_map(tasks, balanced):
    config = PtMapConfig(steps=4, sharpness=4, balanced=balanced, rounds=400)
    found = pt_map_logits(*tasks, WAYS, config)
    for (support, labels, query), logits in zip(each(tasks), found.numpy(), strict=True):
        rows = [unit(np.sign(x) * np.sqrt(np.abs(x))) for x in (support, query)]
        support, query = (unit(x - x.mean(0)) for x in rows)
        means = means_of(support, labels)
        assign = solved_transport if balanced else lambda scores: softmax(scores, -1)
        for _ in range(4):
            p = np.concatenate([np.eye(WAYS)[labels], assign(-4 * distances(query, means))])
            estimates = p.T @ np.concatenate([support, query]) / p.sum(0)[:, None]
            means = means + 0.2 * (estimates - means)
        expected = assign(-4 * distances(query, means))
        np.testing.assert_allclose(np.exp(logits), expected, atol=1e-4)


def test_pt_map_is_told_the_balance_unless_it_is_not(tasks):
    unequal = tasks[0], tasks[1], tasks[0][:, [0, 0, 0, 0, 1, 1]]  # four of class 0, two of 1
    told, free = (
        pt_map_logits(*unequal, WAYS, PtMapConfig(balanced=balanced)).exp().sum(-2)
        for balanced in (True, False)
    )
    torch.testing.assert_close(told, torch.full_like(told, 2), rtol=1e-3, atol=1e-3)
    assert bool((free[:, 0] > 3).all())


@pytest.mark.parametrize(("alpha", "order"), [(None, 7.0), (2.0, 2.0)])
def test_alpha_tim_descends_as_adam_does_by_differences(tasks, alpha, order):
    config = AlphaTimConfig(alpha=alpha, steps=3, learning_rate=0.01, marginal_weight=0.7)
    narrow = tasks[0][..., :4], tasks[1], tasks[2][..., :4]
    with torch.no_grad():  # as learners predict
        found = alpha_tim_logits(*narrow, WAYS, config)
    for (support, labels, query), logits in zip(each(narrow), found.numpy(), strict=True):
        support, query = unit(support), unit(query)

        def loss(flat, support=support, labels=labels, query=query):
            means = flat.reshape(WAYS, -1)
            known = softmax(-7.5 * distances(support, means), -1)
            p = softmax(-7.5 * distances(query, means), -1)
            entropies = [(1 - (x**order).sum(-1)) / (order - 1) for x in (p.mean(0), p)]
            cross_entropy = -np.log(known[np.arange(len(labels)), labels]).mean()
            return cross_entropy - 0.7 * entropies[0] + entropies[1].mean()

        flat = means_of(support, labels).ravel()
        first = second = np.zeros_like(flat)
        for step in range(1, 4):
            around = 1e-5 * np.eye(len(flat))
            slope = np.array([(loss(flat + e) - loss(flat - e)) / 2e-5 for e in around])
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            up, down = first / (1 - 0.9**step), second / (1 - 0.999**step)
            flat = flat - 0.01 * up / (np.sqrt(down) + 1e-8)
        expected = -7.5 * distances(query, flat.reshape(WAYS, -1))
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_alpha_tim_takes_the_order_of_one_shot(tasks):
    first = tasks[0][:, :WAYS], tasks[1][:, :WAYS], tasks[2]
    logits = [
        alpha_tim_logits(*first, WAYS, AlphaTimConfig(alpha=a, steps=2)) for a in (None, 2.0, 7.0)
    ]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert tsallis(torch.tensor([0.5, 0.25, 0.25]), 2.0).item() == pytest.approx(0.625)


def test_label_propagation_is_the_limit_of_its_iteration(tasks):
    found = propagated_logits(*tasks, WAYS, width=0.5, alpha=0.8)
    for (support, labels, query), logits in zip(each(tasks), found.numpy(), strict=True):
        rows = np.concatenate([support, query])
        rows = unit(rows - rows.mean(0))
        edges = np.exp(-distances(rows, rows) / 0.5)
        np.fill_diagonal(edges, 0)
        scale = 1 / np.sqrt(edges.sum(0))
        spread = scale[:, None] * edges * scale
        given = np.concatenate([np.eye(WAYS)[labels], np.zeros((len(query), WAYS))])
        state = given
        for _ in range(300):
            state = 0.8 * spread @ state + 0.2 * given
        assert_shares(logits, np.log(state[len(labels) :]))


def wrapped(head, learner, config=None):
    return head().wrap(learner, config or head.Config(), torch.Generator)


@pytest.mark.parametrize("kind", [ProtoNet, Centroids])
@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
def test_heads_classify_the_learners_own_embeddings(kind, bn):
    net = tiny_net(torch.Generator().manual_seed(3), "conv4", 5, 16).requires_grad_(False).eval()
    learner = kind(net, LearnerSettings(bn=bn))
    batch = some_tasks()
    given = batch.support_x, batch.support_y, batch.query_x
    head = wrapped(SoftKMeans, learner)
    support_e, query_e = learner.embed_tasks(batch.support_x, batch.query_x)
    expected = soft_kmeans_logits(support_e, batch.support_y, query_e, 5, 30, 5.0)
    torch.testing.assert_close(head.predict(*given), expected)
    plain = centroid_logits(support_e, batch.support_y, query_e, 5)
    torch.testing.assert_close(learner.predict(*given), plain, rtol=1e-4, atol=1e-5)
    assert head.n_parameters == learner.n_parameters
    assert isinstance(head, EmbeddingLearner) == isinstance(learner, EmbeddingLearner)


def test_heads_refuse_learners_without_embeddings():
    assert "Maml classifies no embeddings; use centroids" in PtMap.refuse(Maml)
    assert AlphaTim.refuse(ProtoNet) is None
