"""Networks that learn the pseudo classes of all teachers, and the embedding made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from baselines.centroids.ensemble_centroids import EnsembleConfig, teachers_learner
from baselines.distillation._pseudo_classifier import (
    ClassifierSettings,
    PseudoClassifier,
    pseudo_classes,
    standardised,
)
from baselines.distillation.cross_teacher import CrossTeacher
from bench.contract import EmbeddingLearner, Pool
from bench.learners.centroids import unit
from tests.helpers import RecordingLog, tiny_context, tiny_net, tiny_pool

QUICK = {"images_per_class": 2, "inversion_steps": 1, "steps": 2, "batch": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return tiny_pool(("conv4", "conv4"), 5, 16, generator(3))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(6, 3, 16, 16, generator=generator(4))


def embedded(pool: Pool, images: Tensor, **config: object) -> Tensor:
    """Return the embedding of images under networks of fresh weights."""
    context = tiny_context(CrossTeacher, pool, config={**QUICK, **config})
    states = [tiny_net(generator(9 + n)).state_dict() for n in range(2)]
    fitted = {f"{n}.{name}": v for n, state in enumerate(states) for name, v in state.items()}
    learner = CrossTeacher().learner(context, fitted)
    assert isinstance(learner, EmbeddingLearner)
    return learner.embed(images)


def test_a_class_that_teachers_share_is_one_class(pool: Pool) -> None:
    first, second = pool
    second = replace(second, class_ids=(*first.class_ids[:2], 90, 80, 70))
    own = torch.zeros(10, 3, 16, 16)
    labels, n_classes = pseudo_classes([first, second], [own, own])
    assert n_classes == 8
    assert labels[:10].tolist() == [0, 1, 2, 3, 4] * 2
    assert labels[10:].tolist() == [0, 1, 7, 6, 5] * 2


def test_standardised_channels_have_mean_0_and_deviation_1_and_flat_ones_stay(
    images: Tensor,
) -> None:
    images = images.clone()
    images[0, 1] = 7.0
    found = standardised(images)
    torch.testing.assert_close(found[1:].mean((2, 3)), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1:].std((2, 3), correction=0), torch.ones(5, 3))
    assert not found[0, 1].any()


@pytest.mark.parametrize("counter", ["nothing", "colour", "standardisation"])
def test_a_network_learns_classes_that_differ_in_shape(counter: str) -> None:
    """Stripes along either axis; colours say nothing."""
    g = generator(1)
    waves = torch.sin(torch.arange(16) * 1.6)
    shapes = torch.stack([waves.expand(16, 16), waves.expand(16, 16).T])
    labels = torch.arange(2).repeat(20)
    images = shapes[labels].unsqueeze(1) + 0.3 * torch.randn(40, 3, 16, 16, generator=g)
    net, log = tiny_net(generator(2)), RecordingLog()
    settings = ClassifierSettings(batch=16, shift=1, mixup=False)
    training = PseudoClassifier(net, counter, images, labels, 2, settings, 30, g, log)
    training.run(lambda step: None, lambda step: None)
    losses = list(log.curve("class_loss").values())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not torch.equal(net.norms[0].running_mean, torch.zeros(32))


def test_networks_stand_beside_the_ensemble_with_their_weight(pool: Pool, images: Tensor) -> None:
    alone = embedded(pool, images)
    beside = embedded(pool, images, beside="ensemble", weight=2.0)
    parts = EnsembleConfig(
        parts="features+logits+soft_labels", root=True, views="mirrored", accuracy_power=2.0
    )
    ensemble = teachers_learner(tuple(pool), parts).embed(images)
    width = ensemble.shape[1]
    torch.testing.assert_close(beside[:, :width], unit(ensemble))
    torch.testing.assert_close(beside[:, width:], 2 * alone)
    for part in alone.chunk(2, dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(len(images)))


def test_mirror_images_have_one_embedding_and_standardisation_ignores_colours(
    pool: Pool, images: Tensor
) -> None:
    found = embedded(pool, images)
    torch.testing.assert_close(embedded(pool, images.flip(-1)), found)
    assert not torch.allclose(embedded(pool, images.flip(-1), mirrored=False), found)
    coloured = images * torch.tensor([0.5, 2, 3])[:, None, None] + 1
    first, second = embedded(pool, coloured).chunk(2, dim=1)
    torch.testing.assert_close(second, found.chunk(2, dim=1)[1], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(first, found.chunk(2, dim=1)[0], atol=1e-2)


def test_the_steps_follow_from_the_budget() -> None:
    assert ClassifierSettings().n_steps(400) == 1600
    assert ClassifierSettings().n_steps(60_000) == 5000
    assert ClassifierSettings(steps=7).n_steps(400) == 7
