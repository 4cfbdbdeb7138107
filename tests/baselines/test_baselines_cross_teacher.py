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
from baselines.distillation._targets import TeacherEnsemble, TeacherTargets
from baselines.distillation.cross_teacher import CrossTeacher
from baselines.distillation.distill_ensemble import DistillEnsemble
from bench.contract import EmbeddingLearner, FitContext, Pool
from bench.learners.centroids import unit
from bench.learners.classifiers import named_classifier
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


def test_networks_start_from_the_student_where_the_configuration_says_so(pool: Pool) -> None:
    """With a rate near 0 they stay where they start, but for the statistics of batch norm."""
    start = tiny_net(generator(21)).state_dict()
    asked: list[str] = []

    def other_fit(method: str, preset: str = "released") -> dict[str, Tensor]:
        asked.append(f"{method} ({preset})")
        return start

    config = {**QUICK, "other_fit": "distill_ensemble", "learning_rate": 1e-9}
    context = tiny_context(CrossTeacher, pool, config=config)
    found = CrossTeacher().fit(replace(context, other_fit=other_fit))
    assert asked == ["distill_ensemble (released)"]
    for number in "01":
        torch.testing.assert_close(found[f"{number}.convs.2.weight"], start["convs.2.weight"])
    assert not torch.allclose(found["0.norms.0.running_mean"], start["norms.0.running_mean"])
    fresh = CrossTeacher().fit(tiny_context(CrossTeacher, pool, config=QUICK))
    assert not torch.allclose(fresh["0.convs.2.weight"], start["convs.2.weight"])


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


def student_of_both(pool: Pool, **changes: object) -> FitContext:
    """Return a context in which `cross_teacher (tuned)` has a fit of fresh networks."""
    config = {"images_per_class": 2, "inversion_steps": 1, "steps": 2, "batch": 8, "passes": 2}
    context = tiny_context(
        DistillEnsemble, pool, config=config | DistillEnsemble.presets["tuned"] | changes
    )
    states = [tiny_net(generator(9 + n)).state_dict() for n in range(2)]
    fitted = {f"{n}.{name}": v for n, state in enumerate(states) for name, v in state.items()}

    def other_fit(method: str, preset: str = "released") -> dict[str, Tensor]:
        assert (method, preset) == ("cross_teacher", "tuned")
        return fitted

    return replace(context, other_fit=other_fit)


def test_the_second_student_learns_the_embedding_of_teachers_and_networks(
    pool: Pool, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TeacherEnsemble] = []
    targets = TeacherEnsemble.targets

    def noted(self: TeacherEnsemble, views: Tensor, again: bool = False) -> TeacherTargets:
        asked.append(self)
        return targets(self, views, again)

    monkeypatch.setattr(TeacherEnsemble, "targets", noted)
    found = DistillEnsemble().fit(student_of_both(pool))
    assert set(found) == set(tiny_net(generator()).state_dict())
    wanted = embedded(pool, images, beside="ensemble", weight=0.9)
    torch.testing.assert_close(asked[0].targets(images).features, wanted)
    assert asked[0].widths[0] == wanted.shape[1]


def test_the_tuned_student_is_asked_about_mirror_images_and_centroids_vote_with_a_ridge(
    pool: Pool, images: Tensor
) -> None:
    context = student_of_both(pool)
    net = tiny_net(generator(5))
    learner = DistillEnsemble().learner(context, net.state_dict())
    assert isinstance(learner, EmbeddingLearner)
    plain = DistillEnsemble().learner(
        student_of_both(pool, views="one", classifier="centroids"), net.state_dict()
    )
    assert isinstance(plain, EmbeddingLearner)
    torch.testing.assert_close(
        learner.embed(images), unit(plain.embed(images) + plain.embed(images.flip(-1)))
    )
    assert learner.n_parameters == plain.n_parameters
    rows, labels = torch.randn(1, 10, 6, generator=generator(6)), torch.arange(5)[None]
    logits = learner.predict_embedded(rows[:, :5], labels, rows[:, 5:])
    both = named_classifier("centroids+ridge", 1.0)(rows[:, :5], labels, rows[:, 5:], 5)
    torch.testing.assert_close(logits, both)
