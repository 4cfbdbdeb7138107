"""ProtoNet, centroids and the pure functions that they share."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from bench.contract import EmbeddingLearner, TaskShape
from bench.errors import BenchError
from bench.learners import batching
from bench.learners.base import LearnerSettings
from bench.learners.centroids import Centroids, centroid_logits, class_means, ridge_logits, unit
from bench.learners.protonet import ProtoNet
from bench.nets.norm import batch_norm, running_norm
from tests.helpers import tiny_net, tiny_tasks

BN_MODES = ("transductive", "support", "running")


def test_centroid_logits_match_scipy():
    rng = np.random.default_rng(0)
    support, query = rng.normal(size=(2, 12, 7)), rng.normal(size=(2, 9, 7))
    labels = np.stack([rng.permutation(np.arange(12) % 4) for _ in range(2)])
    logits = centroid_logits(
        torch.tensor(support), torch.tensor(labels), torch.tensor(query), n_way=4
    )
    for task in range(2):
        means = np.stack([support[task][labels[task] == c].mean(0) for c in range(4)])
        expected = -cdist(query[task], means, "sqeuclidean")
        np.testing.assert_allclose(logits[task].numpy(), expected, rtol=1e-10)


def test_class_means_weigh_every_image_of_a_class_alike():
    embeddings = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    means = class_means(embeddings, torch.tensor([0, 0, 1]), 2)
    assert torch.equal(means, torch.tensor([[2.0, 0.0], [0.0, 5.0]]))


def test_unit_has_length_one_and_keeps_zeros():
    embeddings = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(embeddings), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("n_way", [2, 7])
@pytest.mark.parametrize("kind", [ProtoNet, Centroids])
def test_any_number_of_classes_and_permutations_of_them(kind, n_way):
    generator = torch.Generator().manual_seed(1)
    tasks = tiny_tasks(generator, 2, TaskShape(n_way, 2, 3))
    learner = kind(tiny_net(generator), LearnerSettings())
    logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    assert logits.shape == (2, n_way * 3, n_way)
    order = torch.randperm(n_way, generator=generator)
    relabelled = learner.predict(tasks.support_x, order[tasks.support_y], tasks.query_x)
    torch.testing.assert_close(relabelled[..., order], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ProtoNet, Centroids])
def test_separated_classes_are_told_apart(kind):
    generator = torch.Generator().manual_seed(2)
    tasks = tiny_tasks(generator, 2, separation=6.0)
    learner = kind(tiny_net(generator), LearnerSettings())
    logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.9


def test_protonet_is_the_distance_of_plain_features():
    generator = torch.Generator().manual_seed(3)
    net = tiny_net(generator)
    tasks = tiny_tasks(generator, 1)
    logits = ProtoNet(net, LearnerSettings()).predict(
        tasks.support_x, tasks.support_y, tasks.query_x
    )
    with torch.no_grad():
        support = net.features(tasks.support_x[0], batch_norm).double().numpy()
        query = net.features(tasks.query_x[0], batch_norm).double().numpy()
    expected = -cdist(query, support, "sqeuclidean")  # one shot: the means are the images
    np.testing.assert_allclose(logits[0].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_centroids_embed_once_where_statistics_are_stored():
    generator = torch.Generator().manual_seed(4)
    net = tiny_net(generator)
    tasks = tiny_tasks(generator, 2, TaskShape(5, 2, 40))
    learner = Centroids(net, LearnerSettings(bn="running"))
    assert isinstance(learner, EmbeddingLearner)
    images = tasks.query_x.flatten(0, 1)  # 400 images: more than one part
    with torch.no_grad():
        expected = torch.nn.functional.normalize(net.features(images, running_norm))
    torch.testing.assert_close(learner.embed(images), expected, rtol=1e-4, atol=1e-6)
    logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    single = learner.predict(tasks.support_x[1:], tasks.support_y[1:], tasks.query_x[1:])
    torch.testing.assert_close(logits[1:], single, rtol=1e-4, atol=1e-5)


def test_centroids_with_batch_statistics_cannot_embed_once_and_modes_differ():
    generator = torch.Generator().manual_seed(5)
    net = tiny_net(generator)
    tasks = tiny_tasks(generator, 1)
    outputs = {}
    for bn in BN_MODES:
        learner = Centroids(net, LearnerSettings(bn=bn))
        assert isinstance(learner, EmbeddingLearner) == (bn == "running")
        outputs[bn] = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    for left, right in itertools.combinations(BN_MODES, 2):
        assert (outputs[left] - outputs[right]).abs().max() > 1e-3


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_batched_centroids_equal_single_ones(bn, monkeypatch):
    generator = torch.Generator().manual_seed(6)
    tasks = tiny_tasks(generator, 3)
    learner = Centroids(tiny_net(generator), LearnerSettings(bn=bn))
    loop = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    monkeypatch.setattr(batching, "batches_tasks", lambda device: True)
    batched = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    torch.testing.assert_close(batched, loop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bn", BN_MODES)
def test_a_class_without_support_is_refused(bn):
    generator = torch.Generator().manual_seed(7)
    tasks = tiny_tasks(generator, 1)
    labels = torch.where(tasks.support_y == 2, 3, tasks.support_y)
    for kind in (ProtoNet, Centroids):
        with pytest.raises(BenchError, match="labels up to 4 but lacks one"):
            kind(tiny_net(generator), LearnerSettings(bn=bn)).predict(
                tasks.support_x, labels, tasks.query_x
            )


@pytest.mark.parametrize("kind", [ProtoNet, Centroids])
def test_an_accelerators_labels_are_not_read_where_the_number_of_classes_is_known(
    monkeypatch, kind
):
    """Without it, and on a CPU whatever is given, they are read, and wrong ones are noticed."""
    generator = torch.Generator().manual_seed(4)
    tasks, net = tiny_tasks(generator, 2, TaskShape(4, 2, 2)), tiny_net(generator)
    lacking = replace(tasks, support_y=tasks.support_y.clamp_min(1))

    def logits(n_way, tasks=tasks):
        learner = kind(net, LearnerSettings(n_way=n_way))
        return learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)

    assert logits(7).shape == (2, 8, 4)  # on a CPU
    monkeypatch.setattr(batching, "batches_tasks", lambda device: True)
    torch.testing.assert_close(logits(4), logits(None))
    assert logits(7).shape == (2, 8, 7)
    with pytest.raises(BenchError, match="lacks one of the classes"):
        logits(None, lacking)
    assert logits(4, lacking).shape == (2, 8, 4)


def test_parameters_below_the_head_are_counted():
    net = tiny_net(torch.Generator().manual_seed(8))
    total = sum(p.numel() for p in net.parameters())
    head = net.head.weight.numel() + net.head.bias.numel()
    for kind in (ProtoNet, Centroids):
        assert kind(net, LearnerSettings()).n_parameters == total - head


def test_ridge_is_the_penalised_least_squares():
    """Against numpy, in the D dimensions: rows of √λ · I stand for the penalty."""
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2]).expand(2, -1)
    found = ridge_logits(support, labels, query, 3, penalty=0.7)
    for task in range(2):
        centred = (support[task] - support[task].mean(0)).numpy()
        penalty = 0.7 * (centred**2).sum(1).mean()
        target = np.eye(3)[labels[task]] - 1 / 3
        stacked = np.vstack([centred, np.sqrt(penalty) * np.eye(4)])
        weight, *_ = np.linalg.lstsq(stacked, np.vstack([target, np.zeros((4, 3))]), rcond=None)
        expected = (query[task] - support[task].mean(0)).numpy() @ weight
        np.testing.assert_allclose(found[task], expected, rtol=1e-8)


def test_ridge_of_equal_supports_has_no_opinion():
    logits = ridge_logits(
        torch.ones(1, 4, 3), torch.tensor([[0, 0, 1, 1]]), torch.zeros(1, 2, 3), 2, 1.0
    )
    assert logits.isfinite().all()
