"""Every baseline: what it learns, what it refuses, that it leaves teachers alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from baselines.centroids._trained_statistics import trained_statistics
from baselines.centroids.ensemble_centroids import EnsembleCentroids, resize
from baselines.centroids.teacher_centroids import TeacherCentroids
from baselines.merging.average import Average
from baselines.simple.best_teacher import BestTeacher
from baselines.simple.oracle import OracleMaml, OracleProtonet
from baselines.simple.random import Random
from bench.contract import EmbeddingLearner, Pool, TaskShape
from bench.errors import BenchError
from bench.nets.norm import running_norm
from bench.suites.expand import serving_learners
from tests.helpers import tiny_context, tiny_pool, tiny_tasks

WEIGHT_METHODS = (Random, Average, BestTeacher)
FEATURE_METHODS = (TeacherCentroids, EnsembleCentroids)
ORACLES = (OracleMaml, OracleProtonet)
EVERY = (*WEIGHT_METHODS, *FEATURE_METHODS, *ORACLES)


def conv_pool(n: int = 3, seed: int = 0, size: int = 16) -> Pool:
    return tiny_pool(("conv4",) * n, 5, size, torch.Generator().manual_seed(seed))


def tasks_of(shape: TaskShape = TaskShape(5, 1, 3), separation: float = 1.0):  # noqa: B008
    return tiny_tasks(torch.Generator().manual_seed(9), 2, shape, separation=separation)


def predict(method_class, context, tasks):
    method = method_class()
    learner = method.learner(context, method.fit(context))
    return learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)


@pytest.mark.parametrize("method_class", EVERY)
def test_every_learner_predicts_the_same_twice_and_touches_neither_teachers_nor_global_state(
    method_class,
):
    pool = conv_pool() if method_class.uses_pool else Pool([], "")
    before = [{k: v.clone() for k, v in t.net.state_dict().items()} for t in pool]
    state = torch.get_rng_state()
    tasks = tasks_of()
    for learner in serving_learners(method_class):
        context = tiny_context(method_class, pool, learner=learner, budget={"meta_iterations": 2})
        assert method_class().skip(context) is None
        first = predict(method_class, context, tasks)
        assert first.shape == (2, 15, 5)
        assert first.isfinite().all()
        assert not first.requires_grad
        assert torch.equal(first, predict(method_class, context, tasks))
    assert torch.equal(state, torch.get_rng_state())
    for teacher, weights in zip(pool, before, strict=True):
        assert all(torch.equal(v, weights[k]) for k, v in teacher.net.state_dict().items())


@pytest.mark.parametrize("method_class", [Random, OracleMaml])
def test_another_seed_gives_another_fit(method_class):
    fits = [
        method_class().fit(
            tiny_context(method_class, Pool([], ""), seed=s, budget={"meta_iterations": 1})
        )
        for s in (0, 1)
    ]
    assert not torch.equal(fits[0]["head.weight"], fits[1]["head.weight"])


@pytest.mark.parametrize("method_class", FEATURE_METHODS)
def test_feature_methods_learn_nothing_and_embed_once(method_class):
    context = tiny_context(method_class, conv_pool())
    method = method_class()
    assert method.fit(context) == {}
    assert isinstance(method.learner(context, {}), EmbeddingLearner)
    batch = replace(context, config=method_class.Config(bn="batch"))
    assert not isinstance(method.learner(batch, {}), EmbeddingLearner)
    logits = [predict(method_class, c, tasks_of()) for c in (context, batch)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("method_class", FEATURE_METHODS)
def test_feature_methods_serve_mixed_pools_and_any_number_of_classes(method_class):
    pool = tiny_pool(("resnet10", "conv4"), 5, 16, torch.Generator().manual_seed(1))
    shape = TaskShape(3, 2, 4)
    context = tiny_context(method_class, pool, shape=shape)
    tasks = tasks_of(shape, separation=6.0)
    logits = predict(method_class, context, tasks)
    assert logits.shape == (2, 12, 3)
    assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.8


def test_average_of_equal_teachers_is_the_teacher():
    teacher = conv_pool(1)[0]
    fitted = Average().fit(tiny_context(Average, Pool([teacher] * 4, "")))
    assert all(torch.equal(fitted[k], v) for k, v in teacher.net.state_dict().items())


def test_average_says_why_it_cannot_serve():
    context = tiny_context(Average, conv_pool(), shape=TaskShape(7, 1, 1))
    assert "has 5 outputs, n_way is 7; set head to zero or drop" in Average().skip(context)
    dropped = replace(context, config=Average.Config(head="drop"))
    assert Average().skip(dropped) is None
    assert Average().fit(dropped)["head.weight"].shape[0] == 7
    large = tiny_context(Average, conv_pool(size=32))
    assert "conv4 at 32 px, the meta-model a conv4 at 16 px" in Average().skip(large)


def test_best_teacher_takes_the_most_accurate_that_fits():
    generator = torch.Generator().manual_seed(2)
    pool = tiny_pool(("resnet10", "conv4", "conv4"), 5, 16, generator, (0.9, 0.4, 0.6))
    fitted = BestTeacher().fit(tiny_context(BestTeacher, pool))
    assert torch.equal(fitted["convs.0.weight"], pool[2].net.convs[0].weight)
    resnets = tiny_pool(("resnet10",), 5, 16, generator)
    context = tiny_context(BestTeacher, resnets)
    assert BestTeacher().skip(context) == "no teacher is a conv4 at 16 px"


def test_teacher_centroids_use_the_teacher_asked_for():
    pool, tasks = conv_pool(3), tasks_of()
    logits = {
        choice: predict(
            TeacherCentroids,
            tiny_context(TeacherCentroids, pool, config={"teacher": choice}),
            tasks,
        )
        for choice in ("best", 0, 1, 2)
    }
    assert torch.equal(logits["best"], logits[2])  # the last is the most accurate of a tiny pool
    assert not torch.equal(logits[0], logits[1])
    context = tiny_context(TeacherCentroids, pool, config={"teacher": 3})
    with pytest.raises(BenchError, match="teacher 3 is not among the 3 of the pool"):
        TeacherCentroids().fit(context)


def test_ensemble_of_one_is_that_teacher_and_of_copies_too():
    pool, tasks = conv_pool(1), tasks_of()
    one = predict(TeacherCentroids, tiny_context(TeacherCentroids, pool), tasks)
    ensemble = predict(EnsembleCentroids, tiny_context(EnsembleCentroids, pool), tasks)
    copies = Pool(list(pool) * 3, "")
    tripled = predict(EnsembleCentroids, tiny_context(EnsembleCentroids, copies), tasks)
    torch.testing.assert_close(ensemble, one)
    torch.testing.assert_close(tripled, 3 * one, rtol=1e-4, atol=1e-5)


def test_ensemble_logits_are_the_sum_over_teachers():
    """Squared distances of concatenated parts add up."""
    pool, tasks = conv_pool(3), tasks_of()
    parts = [
        predict(
            TeacherCentroids, tiny_context(TeacherCentroids, pool, config={"teacher": i}), tasks
        )
        for i in range(3)
    ]
    whole = predict(EnsembleCentroids, tiny_context(EnsembleCentroids, pool), tasks)
    torch.testing.assert_close(whole, sum(parts), rtol=1e-4, atol=1e-5)


def test_ensemble_parts_are_what_they_say():
    pool = conv_pool(2)
    images = tasks_of().query_x[0]
    nets = [teacher.net for teacher in pool]

    def embedded(**config):
        context = tiny_context(EnsembleCentroids, pool, config=config)
        return EnsembleCentroids().learner(context, {}).embed(images)

    features = [net.features(images, running_norm) for net in nets]
    logits = [net.head(f) for net, f in zip(nets, features, strict=True)]
    expected = {
        "features": [F.normalize(f) for f in features],
        "logits": [F.normalize(z) for z in logits],
        "soft_labels": [F.normalize(torch.softmax(z / 4, 1)) for z in logits],
        "features+logits": list(
            itertools.chain(
                *((F.normalize(f), F.normalize(z)) for f, z in zip(features, logits, strict=True))
            )
        ),
    }
    for parts, tensors in expected.items():
        found = embedded(parts=parts, temperature=4.0)
        torch.testing.assert_close(found, torch.cat(tensors, 1), rtol=1e-4, atol=1e-5)
    roots = torch.cat([F.normalize(f.sqrt()) for f in features], 1)
    torch.testing.assert_close(embedded(root=True), roots, rtol=1e-4, atol=1e-5)


def test_ensemble_counts_heads_only_where_it_uses_them():
    pool = conv_pool(2)

    def count(**config):
        context = tiny_context(EnsembleCentroids, pool, config=config)
        return EnsembleCentroids().learner(context, {}).n_parameters

    heads = 2 * sum(p.numel() for p in pool[0].net.head.parameters())
    assert count(parts="logits") - count() == heads


def test_teachers_of_other_image_sizes_get_resized_images():
    pool = tiny_pool(("conv4", "resnet10"), 5, 32, torch.Generator().manual_seed(3))
    tasks = tasks_of(separation=6.0)
    logits = predict(EnsembleCentroids, tiny_context(EnsembleCentroids, pool), tasks)
    assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.8
    flat = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(resize(flat, 32), torch.full((1, 3, 32, 32), 0.7))
    assert resize(flat, 16) is flat


def test_differently_normalised_teachers_are_skipped_with_a_reason():
    pool = conv_pool(2)
    mixed = Pool([pool[0], replace(pool[1], mean=(0.1, 0.2, 0.3))], "")
    context = tiny_context(EnsembleCentroids, mixed)
    assert "normalised in 2 different ways" in EnsembleCentroids().skip(context)


@pytest.mark.parametrize("method_class", ORACLES)
def test_oracles_learn_their_real_tasks(method_class):
    """Classes are noise around an image: after training, tasks are solved better than before."""
    tasks = tiny_tasks(torch.Generator().manual_seed(5), 20)
    config, protocol = {"meta_iterations": 15, "outer_lr": 3e-3}, {"inner_lr": 0.1}
    context = tiny_context(method_class, Pool([], ""), config=config, protocol=protocol)
    trained = predict(method_class, context, tasks)
    fresh = predict(Random, tiny_context(method_class, Pool([], ""), protocol=protocol), tasks)
    losses = [
        F.cross_entropy(logits.flatten(0, 1), tasks.query_y.flatten())
        for logits in (trained, fresh)
    ]
    assert losses[0] < 0.9 * losses[1]
    assert context.log.counters["train_tasks"] == 60


def test_oracle_overrides_win_over_budget_and_protocol():
    context = tiny_context(
        OracleMaml, Pool([], ""), config={"meta_iterations": 3, "outer_lr": 1e-9}
    )
    start = Random().fit(tiny_context(OracleMaml, Pool([], "")))
    fitted = OracleMaml().fit(context)
    assert context.log.steps == [(1, 3), (2, 3), (3, 3)]
    torch.testing.assert_close(fitted["head.weight"], start["head.weight"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("method_class", EVERY)
def test_unknown_keys_are_errors(method_class):
    with pytest.raises(ValidationError):
        method_class.Config.model_validate({"no_such_key": 1})


def test_mirrored_views_do_not_tell_an_image_from_its_mirror_image():
    pool, images = conv_pool(2), tasks_of().query_x[0]

    def embedded(x, **config):
        context = tiny_context(EnsembleCentroids, pool, config=config)
        return EnsembleCentroids().learner(context, {}).embed(x)

    for preset in EnsembleCentroids.presets.values():
        config = {**preset, "views": "mirrored"}
        torch.testing.assert_close(embedded(images, **config), embedded(images.flip(-1), **config))
    assert not torch.allclose(embedded(images), embedded(images.flip(-1)), atol=1e-3)


def test_teachers_weigh_by_their_accuracy():
    pool, images = conv_pool(3), tasks_of().query_x[0]
    context = tiny_context(EnsembleCentroids, pool, config={"accuracy_power": 2.0})
    found = EnsembleCentroids().learner(context, {}).embed(images)
    lengths = found.view(len(images), 3, -1).norm(dim=-1)
    expected = torch.tensor([teacher.accuracy**2 for teacher in pool]).expand_as(lengths)
    torch.testing.assert_close(lengths, expected)


def test_the_tuned_preset_is_root_features_logits_and_root_soft_labels():
    pool, images = conv_pool(1), tasks_of().query_x[0]
    config = {**EnsembleCentroids.presets["tuned"], "accuracy_power": 0.0, "views": "one"}
    context = tiny_context(EnsembleCentroids, pool, config=config)
    features = pool[0].net.features(images, running_norm)
    logits = pool[0].net.head(features)
    soft = torch.softmax(logits / 2, 1).sqrt()
    expected = torch.cat([F.normalize(x) for x in (features.sqrt(), logits, soft)], 1)
    found = EnsembleCentroids().learner(context, {}).embed(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_ridge_on_top_of_the_ensemble_tells_separable_classes():
    tasks = tasks_of(TaskShape(5, 5, 3), separation=6.0)
    for bn in ("running", "batch"):
        config = {"classifier": "ridge", "bn": bn}
        context = tiny_context(EnsembleCentroids, conv_pool(), config=config)
        logits = predict(EnsembleCentroids, context, tasks)
        assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.8


def test_a_teachers_own_statistics_are_those_of_features_whose_norms_it_remembers():
    """Images that give the last norm its remembered statistics have the mean that is computed;
    here by drawing what the norm puts out, without the network's convolutions."""
    teacher = conv_pool(1, seed=4)[0]
    net = teacher.net
    mean, deviation = trained_statistics(
        net, 16, lambda x: x, torch.Generator().manual_seed(0), "cpu"
    )
    assert mean.shape == deviation.shape == (net.n_features,)
    last = net.norms[-1]
    draws = torch.randn(40_000, 32, 4, generator=torch.Generator().manual_seed(1))
    values = (last.bias[:, None] + last.weight[:, None] * draws).amax(2).relu()
    torch.testing.assert_close(mean, values.mean(0), rtol=0.2, atol=0.15)
    torch.testing.assert_close(deviation, values.std(0), rtol=0.3, atol=0.05)


def test_standardising_by_the_teachers_statistics_changes_the_features_alone():
    pool, images = conv_pool(2), tasks_of().query_x[0]
    config = {"transform": "whitened", "statistics": "teachers", "parts": "features+logits"}
    context = tiny_context(EnsembleCentroids, pool, config=config)
    method = EnsembleCentroids()
    fitted = method.fit(context)
    assert fitted.keys() == {"mean.00", "mean.01", "deviation.00", "deviation.01"}
    assert min(float(value.min()) for name, value in fitted.items() if "dev" in name) > 0
    found = method.learner(context, fitted).embed(images)
    parts = []
    for number, teacher in enumerate(pool):
        features = teacher.net.features(images, running_norm)
        moved = (features - fitted[f"mean.0{number}"]) / fitted[f"deviation.0{number}"]
        parts += [F.normalize(moved), F.normalize(teacher.net.head(features))]
    torch.testing.assert_close(found, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)
    again = method.fit(tiny_context(EnsembleCentroids, pool, config=config))
    assert all(torch.equal(fitted[name], again[name]) for name in fitted)


@pytest.mark.parametrize("method_class", FEATURE_METHODS)
@pytest.mark.parametrize(
    "config",
    [
        {"classifier": "logistic"},
        {"transform": "centred"},
        {"transform": "whitened", "bn": "batch"},
        {"transform": "centred", "statistics": "teachers", "root": True},
        {"support_fit_power": 1.0, "parts": "features+logits+soft_labels"},
        {"support_fit_power": 2.0, "classifier": "ridge", "transform": "centred"},
    ],
    ids=str,
)
def test_every_setting_tells_separable_classes(method_class, config):
    tasks = tasks_of(TaskShape(5, 5, 3), separation=6.0)
    logits = predict(method_class, tiny_context(method_class, conv_pool(), config=config), tasks)
    assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.8


def test_what_is_new_leaves_the_identity_of_older_records():
    config = EnsembleCentroids.Config()
    changed = config.model_copy(update={"transform": "centred"})
    assert "transform" not in config.identity()
    assert changed.identity() == {**config.identity(), "transform": "centred"}


def test_statistics_of_teachers_need_batch_norm():
    pool = conv_pool(1)
    bare = replace(pool[0], net=torch.nn.Linear(1, 1))
    config = {"transform": "centred", "statistics": "teachers"}
    context = tiny_context(EnsembleCentroids, Pool([bare], ""), config=config)
    assert "has no batch norm" in EnsembleCentroids().skip(context)
