"""The settings that ProtoNet is tuned with: features of length 1, and norms that learn alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from bench.learners.base import LearnerSettings
from bench.learners.protonet import NormalisedProtoNet, ProtoNet
from bench.nets.norm import batch_norm, norm_parameters
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from purer.method import TUNED, TUNED_PROTONET, Purer
from tests.helpers import tiny_context, tiny_net, tiny_pool, tiny_tasks

SETTINGS = LearnerSettings()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def context_of(learner: str = "protonet", **config):
    pool = tiny_pool(["conv4", "conv4"], 5, 16, generator())
    return tiny_context(Purer, pool, learner=learner, config=config, budget={"meta_iterations": 3})


def test_normalised_prototypes_by_scipy():
    net, tasks = tiny_net(generator()), tiny_tasks(generator(1))
    logits = NormalisedProtoNet(net, SETTINGS, 0.25).predict(
        tasks.support_x, tasks.support_y, tasks.query_x
    )
    with torch.no_grad():
        support = net.features(tasks.support_x[0], batch_norm).double().numpy()
        query = net.features(tasks.query_x[0], batch_norm).double().numpy()
    support /= np.linalg.norm(support, axis=1, keepdims=True)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    expected = -cdist(query, support, "sqeuclidean") / 0.25  # one shot: the means are the supports
    np.testing.assert_allclose(logits[0].numpy(), expected, atol=1e-4)


def test_the_temperature_changes_gradients_and_no_prediction():
    net, tasks = tiny_net(generator()).requires_grad_(True), tiny_tasks(generator(1))
    params = dict(net.named_parameters())
    warm, cold = (NormalisedProtoNet(net, SETTINGS, t) for t in (1.0, 0.1))
    given = (tasks.support_x, tasks.support_y, tasks.query_x)
    assert torch.equal(warm.predict(*given).argmax(-1), cold.predict(*given).argmax(-1))
    losses = [learner.outer_loss(params, tasks)[0].mean().item() for learner in (warm, cold)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_features_of_length_one_forget_their_scale():
    net, scaled = tiny_net(generator()), tiny_net(generator())
    scaled.scale_features(3.0)
    tasks = tiny_tasks(generator(1))
    given = (tasks.support_x, tasks.support_y, tasks.query_x)
    normalised = [NormalisedProtoNet(one, SETTINGS, 1.0).predict(*given) for one in (net, scaled)]
    plain = [ProtoNet(one, SETTINGS).predict(*given) for one in (net, scaled)]
    torch.testing.assert_close(normalised[0], normalised[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain[0], plain[1], rtol=0.1)


def test_the_learner_that_is_tested_is_the_one_that_was_trained():
    context = context_of(feature_normalisation="l2", temperature=0.5)
    learner = Purer().learner(context, Purer().fit(context))
    assert isinstance(learner, NormalisedProtoNet)
    assert type(Purer().learner(context_of(), Purer().fit(context_of()))) is ProtoNet


@pytest.mark.parametrize("trained", ["all", "norms"])
def test_what_is_trained_changes_and_nothing_else(trained):
    context = context_of(trained=trained, initialisation="best_teacher")
    start = context.pool[1].net.state_dict()
    fitted = Purer().fit(context)
    norms = set(norm_parameters(context.pool[1].net))
    assert norms == {f"norms.{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    changed = {name for name, value in fitted.items() if not torch.equal(value, start[name])}
    body = {name for name in start if name.startswith("convs.") and name.endswith("weight")}
    assert norms <= changed
    assert changed & body == (body if trained == "all" else set())
    if trained == "norms":
        assert changed == norms


def test_normalisation_is_refused_where_it_would_do_nothing():
    assert Purer().skip(context_of(feature_normalisation="l2")) is None
    reason = Purer().skip(context_of("maml", feature_normalisation="l2"))
    assert reason == (
        "feature_normalisation needs a metric learner, as protonet, and maml is none; "
        "set it to none"
    )


def test_a_preset_follows_the_learner_and_what_is_set_by_hand_wins():
    cells = expand(*read_suite("glyphs", ["purer.outer_lr=0.003"]))
    tuned = {
        c.learner: c.method_config for c in cells if (c.method, c.preset) == ("purer", "tuned")
    }
    assert set(tuned) == {"maml", "protonet"}
    for learner, preset in (("maml", TUNED), ("protonet", TUNED_PROTONET)):
        wanted = {**preset, "outer_lr": 0.003}
        assert wanted.items() <= tuned[learner].items()
    assert tuned["maml"]["feature_normalisation"] == "none"
