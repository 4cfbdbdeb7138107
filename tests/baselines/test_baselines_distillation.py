"""Distillation: what is matched, what is drawn, what a student learns, and how a fit resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from baselines.distillation._dead_leaves import dead_leaves, normalised_leaves, spectral_noise
from baselines.distillation._losses import feature_loss, similarity_loss, soft_label_loss
from baselines.distillation._mixing import blend, cut_mix, mix
from baselines.distillation._pseudo_views import ViewSettings, draw_views
from baselines.distillation._student import (
    Distiller,
    FusedBatchNorm,
    StudentSettings,
    schedule,
    set_statistics,
)
from baselines.distillation._targets import TargetSettings, TeacherEnsemble, TeacherTargets
from baselines.distillation.distill_average import DistillAverage
from baselines.distillation.distill_ensemble import DistillEnsemble
from baselines.distillation.single_dfkd import SingleDfkd
from bench.contract import NetSpec, Pool
from bench.inversion.optimise import InversionSettings, invert
from bench.nets.norm import batch_norm, batch_statistics
from bench.suites.expand import serving_learners
from bench.teachers.adapt import adapt_pool
from tests.helpers import RecordingLog, tiny_context, tiny_net, tiny_pool, tiny_tasks

METHODS = (SingleDfkd, DistillAverage, DistillEnsemble)
QUICK = {"images_per_class": 4, "inversion_steps": 5, "steps": 6, "batch": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def conv_pool(n: int = 2, **kwargs) -> Pool:
    return tiny_pool(("conv4",) * n, 5, 16, generator(3), **kwargs)


# --- losses


def test_losses_of_equal_answers_are_zero():
    features, logits = noise(6, 4), noise(6, 5)
    torch.testing.assert_close(feature_loss(features, features), torch.tensor(0.0))
    torch.testing.assert_close(similarity_loss(features, features), torch.tensor(0.0))
    assert soft_label_loss(logits, logits, [2, 3], 2.0) == 0


def test_similarities_do_not_ask_for_dimensions_rotation_scale_or_place():
    features = noise(6, 4)
    rotation, _ = torch.linalg.qr(noise(4, 4, seed=1))
    wider = F.pad(3 * features @ rotation + 5 * rotation[0], (0, 3))
    assert similarity_loss(wider, features) < 1e-5
    assert similarity_loss(noise(6, 4, seed=2), features) > 0.1


def test_similarity_loss_by_hand():
    """Two points and one in between against two that coincide.

    On a line at -1, 0, 1 the centred Gram matrix is x xᵀ with x = (-1, 0, 1); at 0, 0, 3 it is
    y yᵀ with y = (-1, -1, 2). Their cosine is (x·y)² / (|x|² |y|²) = 9 / (2 · 6) = 3/4.
    """
    loss = similarity_loss(torch.tensor([[-1.0], [0], [1]]), torch.tensor([[0.0], [0], [3]]))
    torch.testing.assert_close(loss, torch.tensor(0.25))


def test_soft_label_loss_is_the_divergence_of_each_teacher_by_numpy():
    logits, wanted, t = noise(4, 5), noise(4, 5, seed=1), 2.0
    expected = []
    for columns in (slice(0, 2), slice(2, 5)):
        p, q = (np.exp(x[:, columns].numpy() / t) for x in (wanted, logits))
        p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
        expected.append(t**2 * (p * np.log(p / q)).sum(1).mean())
    found = soft_label_loss(logits, wanted, [2, 3], t)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_losses_are_differentiable():
    x, y = noise(5, 3).double().requires_grad_(), noise(5, 4, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, y), x)
    assert torch.autograd.gradcheck(lambda x: soft_label_loss(x, y[:, :3], [3], 2.0), x)


# --- images


def test_blending_by_hand():
    found = blend(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.tensor([0.25, 1.0]))
    assert (found[0] == 0.25).all()
    assert (found[1] == 1).all()


def test_a_cut_is_the_square_asked_for():
    centres, sides = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([2.0, 0.0])
    found = cut_mix(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), centres, sides)
    expected = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(found[0, 0], expected)
    assert (found[1] == 0).all()


def test_shares_say_how_many_images_are_mixed():
    images, others = torch.zeros(400, 1, 8, 8), torch.ones(400, 1, 8, 8)
    assert torch.equal(mix(images, others, 0, 0, generator()), images)
    means = mix(images, others, 0.25, 0.25, generator()).flatten(1)
    flat = means.amax(1) == means.amin(1)  # blended ones, and those that nothing happened to
    blended = flat & (means.amax(1) > 0)
    assert blended.double().mean() == pytest.approx(0.25, abs=0.08)
    cut = (~flat) | (means.amin(1) == 1)
    assert cut.double().mean() == pytest.approx(0.25, abs=0.08)
    assert set(means[~flat].unique().tolist()) == {0.0, 1.0}


def test_dead_leaves_are_pictures_that_differ_and_follow_their_generator():
    state = torch.get_rng_state()
    images = dead_leaves(6, 16, generator())
    assert images.shape == (6, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.flatten(1).std(1).min() > 0.01
    assert torch.equal(images, dead_leaves(6, 16, generator()))
    assert not torch.equal(images, dead_leaves(6, 16, generator(1)))
    assert torch.equal(state, torch.get_rng_state())
    normalised = normalised_leaves(6, 16, (0.5,) * 3, (0.25,) * 3, generator())
    torch.testing.assert_close(normalised, (images - 0.5) / 0.25)


def test_neighbours_in_dead_leaves_are_alike_as_in_photographs():
    """Their correlation is high; that of white noise is about zero."""
    images = dead_leaves(20, 32, generator())

    def neighbours(x):
        x = x - x.mean((2, 3), keepdim=True)
        return (x[..., 1:] * x[..., :-1]).mean() / x.square().mean()

    assert neighbours(images) > 0.7
    assert neighbours(noise(20, 3, 32, 32)).abs() < 0.05


def test_spectral_noise_has_mean_0_and_deviation_1_and_falls_with_the_frequency():
    x = spectral_noise(8, 32, generator())
    torch.testing.assert_close(x.mean((2, 3)), torch.zeros(8, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((2, 3)), torch.ones(8, 3))
    power = torch.fft.rfft2(x).abs().square().mean((0, 1))
    assert power[1, 0] > 5 * power[4, 0] > 5 * power[14, 0]


def test_views_come_from_the_images_alone_where_nothing_else_is_asked_for():
    plain = ViewSettings(leaves_share=0, shift=0, flip=False, blend_share=0, cut_share=0)
    images, teacher = noise(5, 3, 16, 16), conv_pool()[0]
    views = draw_views(images, 40, teacher, plain, generator())
    assert all(any(torch.equal(view, image) for image in images) for view in views)
    assert len({int(view.sum() * 1e4) for view in views}) == 5
    for settings in (ViewSettings(), ViewSettings(leaves_share=1.0)):
        one, same, other = (
            draw_views(images, 9, teacher, settings, generator(s)) for s in (0, 0, 1)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_shares_of_mixing_that_exceed_one_are_refused():
    with pytest.raises(ValidationError, match=r"blend_share 0.7 and cut_share 0.5 exceed 1"):
        ViewSettings(blend_share=0.7, cut_share=0.5)


def test_inversion_starts_where_it_is_told_and_blocks_by_hand_change_rounding_only():
    net = tiny_net(generator(1)).requires_grad_(False)
    labels, start = torch.arange(5), noise(5, 3, 16, 16)
    before = start.clone()
    still = invert(net, labels, 16, InversionSettings(inversion_steps=0), generator(), start=start)
    assert torch.equal(still, start)
    settings = InversionSettings(inversion_steps=1, pixel_lr=0.1)
    plain, fused = (
        invert(net, labels, 16, settings, generator(), start=start, fused=fused)
        for fused in (False, True)
    )
    assert torch.equal(start, before)
    assert ((plain - fused).abs() > 1e-3).double().mean() < 0.01  # where a gradient is about zero


# --- teachers and students


def test_teachers_answers_do_not_tell_an_image_from_its_mirror_image_where_asked_not_to():
    pool, images, log = conv_pool(), noise(4, 3, 16, 16), RecordingLog()
    teachers = TeacherEnsemble(pool, TargetSettings(), True, log)
    one, other = teachers.targets(images), teachers.targets(images.flip(-1))
    torch.testing.assert_close(one.features, other.features)
    assert one.features.shape[1] == teachers.widths[0] == 2 * (32 + 5 + 5)
    assert one.logits.shape[1] == teachers.widths[1] == 10
    torch.testing.assert_close(one.logits[:, 5:], pool[1].net(images), rtol=1e-4, atol=1e-5)
    assert log.counters["teacher_forward_images"] == 2 * 4 * 2 * 3
    plain = TeacherEnsemble(pool, TargetSettings(mirrored=False), False, log)
    assert plain.targets(images).logits is None
    assert not torch.allclose(
        plain.targets(images).features, plain.targets(images.flip(-1)).features
    )
    assert log.counters["teacher_forward_images"] == 2 * 4 * 2 * 3 + 3 * 4 * 2


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[9] == max(rates) == 1
    assert rates[0] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert schedule(0, 1) == 1


def test_statistics_are_those_of_the_images():
    net, images = tiny_net(generator()), noise(300, 3, 16, 16, seed=1)
    wanted = batch_statistics(net.convs[0](images[:256]))
    rest = batch_statistics(net.convs[0](images[256:]))
    set_statistics(net, images)
    torch.testing.assert_close(net.norms[0].running_mean, (wanted[0] + rest[0]) / 2)
    torch.testing.assert_close(net.norms[0].running_var, (wanted[1] + rest[1]) / 2)
    assert not any(parameter.grad is not None for parameter in net.parameters())


def distiller(pool: Pool, steps: int, images: torch.Tensor, log=None, **config) -> Distiller:
    settings = StudentSettings(batch=16, learning_rate=5e-3, passes=4, **config)
    log = log or RecordingLog()
    net = tiny_net(generator(7))
    teachers = TeacherEnsemble(pool, settings, settings.soft_label_weight > 0, log)
    return Distiller(teachers, images, net, settings, steps, generator(8), log)


def test_all_losses_fall():
    log = RecordingLog()
    student = distiller(conv_pool(), 120, noise(40, 3, 16, 16), log, soft_label_weight=1.0)
    student.run(lambda step: None, lambda step: None)
    for name in ("feature_loss", "similarity_loss", "soft_label_loss"):
        values = list(log.curve(name).values())
        assert len(values) == 120
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5]), name


def test_a_student_of_one_teacher_agrees_with_it_on_pseudo_images_that_it_never_saw():
    pool, labels = conv_pool(1), torch.arange(5).repeat(30)
    settings = InversionSettings(inversion_steps=120, pixel_lr=0.25, bn_weight=0.0, jitter=0)
    images = invert(pool[0].net, labels, 16, settings, generator(), fused=True)
    plain = {"leaves_share": 0.0, "blend_share": 0.0, "cut_share": 0.0, "mirrored": False}
    student = distiller(pool, 80, images[:100], soft_label_weight=1.0, flip=False, shift=0, **plain)
    student.run(lambda step: None, lambda step: None)
    with torch.no_grad():
        features = student.student.net.features(images[100:])
        told = student.student.to_logits(features).argmax(1)
    wanted = pool[0].net(images[100:]).argmax(1)
    chance = wanted.bincount().max() / 50  # of always saying the most frequent class
    assert chance < 0.5
    assert (told == wanted).double().mean() > chance + 0.2


def test_all_views_of_a_round_are_used_equally_often():
    student = distiller(conv_pool(1), 12, noise(10, 3, 16, 16))
    rows = torch.cat(student._batches(48))
    assert len(rows) == 12 * 16
    assert (rows.bincount(minlength=48) == 4).all()


@pytest.mark.parametrize("method", METHODS)
def test_students_cost_what_the_meta_model_costs(method):
    """The learner is the meta-model's body and nothing else; heads start at zero."""
    context = tiny_context(method, conv_pool(), config=QUICK)
    fitted = method().fit(context)
    assert fitted.keys() == tiny_net(generator()).state_dict().keys()
    assert (fitted["head.weight"] == 0).all()
    net = tiny_net(generator())
    body = sum(p.numel() for n, p in net.named_parameters() if not n.startswith("head."))
    assert method().learner(context, fitted).n_parameters == body
    log = context.log
    assert log.steps[-1][0] == log.steps[-1][1]
    assert log.counters["pseudo_images"] > 0
    assert log.counters["teacher_forward_images"] > log.counters["pseudo_images"]
    assert any(name.startswith("pseudo images of") for name in log.pictures)
    assert all(p.min() >= 0 and p.max() <= 1 for p in log.pictures.values())


@pytest.mark.parametrize("method", METHODS)
def test_pools_of_other_architectures_and_image_sizes_are_served(method):
    pool = tiny_pool(("resnet10", "conv4"), 5, 16, generator(4), (0.9, 0.5))
    net = NetSpec("conv4_pooled", 3, 32)
    adapted = adapt_pool(pool, pool[0].mean, pool[0].std, 32)
    context = tiny_context(method, adapted, config={**QUICK, "steps": 2}, net=net)
    fitted = method().fit(context)
    assert fitted["head.weight"].shape == (3, 32)
    assert all(value.isfinite().all() for value in fitted.values())


def test_differently_normalised_teachers_are_refused_by_all_but_single():
    pool = conv_pool()
    pool = Pool([pool[0], replace(pool[1], mean=(0.1,) * 3)], "")
    for method in METHODS:
        reason = method().skip(tiny_context(method, pool))
        assert (reason is None) == (method is SingleDfkd)


def test_single_takes_the_best_teacher_and_ensemble_starts_from_it_where_asked():
    pool = conv_pool(3, accuracies=(0.5, 0.9, 0.7))
    context = tiny_context(SingleDfkd, pool)
    assert SingleDfkd().teachers_used(context) == [pool[1]]
    config = {**QUICK, "steps": 1, "learning_rate": 1e-9, "initialisation": "best_teacher"}
    fitted = DistillEnsemble().fit(tiny_context(DistillEnsemble, pool, config=config))
    torch.testing.assert_close(fitted["convs.0.weight"], pool[1].net.convs[0].weight)


def test_the_average_is_that_of_students_of_one_start_with_statistics_of_its_own():
    config = {**QUICK, "steps": 2, "learning_rate": 1e-9}
    context = tiny_context(DistillAverage, conv_pool(), config=config)
    fitted = DistillAverage().fit(context)
    start = context.build_net(context.generator("initialisation"))
    torch.testing.assert_close(fitted["convs.1.weight"], start.convs[1].weight)
    assert not torch.allclose(fitted["norms.0.running_var"], torch.ones(32))


def test_budgets_scale_the_steps_up_to_a_bound():
    settings = StudentSettings()
    per, most = settings.steps_per_meta_iteration, settings.most_steps
    assert settings.n_steps(10) == 10 * per
    assert settings.n_steps(10**6) == most
    assert StudentSettings(steps=7).n_steps(10**6) == 7


def test_a_student_tells_classes_apart():
    tasks = tiny_tasks(generator(5), 4, separation=6.0)
    context = tiny_context(DistillEnsemble, conv_pool(), config=QUICK)
    for name in serving_learners(DistillEnsemble):
        made = tiny_context(DistillEnsemble, conv_pool(), config=QUICK, learner=name)
        learner = DistillEnsemble().learner(made, DistillEnsemble().fit(context))
        logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
        assert logits.shape == (4, 15, 5)
        if name not in ("maml", "anil"):
            assert (logits.argmax(-1) == tasks.query_y).double().mean() > 0.6


def test_lessons_have_a_length():
    assert len(TeacherTargets(noise(4, 3, 2, 2), noise(4, 2), None)) == 4


def test_fused_and_plain_normalisation_give_a_student_the_same_features():
    net, images = tiny_net(generator()), noise(8, 3, 16, 16)
    torch.testing.assert_close(
        net.features(images, FusedBatchNorm()),
        net.features(images, batch_norm),
        rtol=1e-3,
        atol=1e-4,
    )
