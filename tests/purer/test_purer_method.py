"""The method as a whole: fit, resume, determinism, and what it refuses."""

from __future__ import annotations

import io
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from bench.contract import Pool, TaskShape
from bench.errors import BenchError
from bench.suites.expand import serving_learners
from purer.dynamic_dataset import DynamicDataset
from purer.method import Purer
from purer.pixel_step import PixelStep
from purer.pseudo_tasks import PseudoTasks
from tests.helpers import tiny_context, tiny_pool, tiny_tasks

SETTINGS = {"adversarial_start": 2, "adversarial_patience": 1}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_fit_is_determined_by_the_seed_alone(make_context):
    first, again, other = (Purer().fit(make_context(seed=s, total=4)) for s in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("learner", serving_learners(Purer))
def test_fit_with_each_real_learner(learner):
    """Adversarial steps included; what comes out predicts, and depends on the curriculum."""
    pool = tiny_pool(["conv4", "conv4"], 5, 16, torch.Generator().manual_seed(0))

    def fit(**config):
        context = tiny_context(Purer, pool, learner=learner, config=config)
        return context, Purer().fit(context)

    context, fitted = fit(**SETTINGS)
    assert context.log.curve("adversarial")[3] == 1
    assert not same(fitted, fit(curriculum=False)[1])
    tasks = tiny_tasks(torch.Generator().manual_seed(1))
    logits = (
        Purer().learner(context, fitted).predict(tasks.support_x, tasks.support_y, tasks.query_x)
    )
    assert logits.shape == (3, 15, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("learner", serving_learners(Purer))
def test_adversarial_gradient_of_each_real_learner_reaches_support_and_query(learner):
    pool = tiny_pool(["conv4", "conv4"], 5, 16, torch.Generator().manual_seed(0))
    context = tiny_context(Purer, pool, learner=learner)
    dataset = DynamicDataset(pool, 4, context.generator("pseudo images"))
    net = context.build_net(context.generator("net")).requires_grad_(True)
    source = PseudoTasks(context, dataset, net, context.training_learner(net))
    touched = (source.adversarial_gradient().flatten(2).abs().amax(2) > 0).sum(1)
    assert sorted(touched.tolist()) == [0] * 5 + [4] * 5
    assert all(parameter.grad is None for parameter in net.parameters())


class Interrupted(Exception):
    """Stands for a kill."""


TUNING = {"augment_flip": True, "augment_shift": 2, "augment_colour": 0.2, "pixel_every": 2}


def saving_context(make_context, validated, resume=None, kill=None, tuning=(), **protocol):
    """Return a context that may break off after an iteration, what it saves, what it did."""
    seen, saved = [], []

    def save(step, state):
        if step % 3 == 0:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            saved[max(0, step // 3 - 1) :] = [buffer] if step else []

    def progress(step, total):
        seen.append(step)
        if step == kill:
            raise Interrupted

    if tuning:  # else four tasks, whose accuracy arms the switch where it is saved
        protocol = {"tasks_per_meta_batch": 2} | protocol
    made = make_context(total=10, protocol=protocol, **SETTINGS, **dict(tuning))
    made.log.progress = progress
    # any deterministic score of the weights that does not simply rise
    score = (lambda state: -abs(state["head.weight"].sum().item())) if validated else None
    made = replace(made, save=save, due=lambda: True, resume=resume, validate=score)
    return made, saved, seen


def loaded(saved):
    """Return the last save, read as the harness reads it; None if nothing was saved."""
    if not saved:
        return None
    saved[-1].seek(0)
    return torch.load(saved[-1], weights_only=True)


KILLS = {
    (False, False): (3, 5),
    (True, False): (5, 9),
    (False, True): (9,),
    (True, True): (5,),
}
"""The iteration of a kill, by whether the fit is validated, and tuned."""


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("tuning", [{}, {**TUNING, "pixel_warmup": 2}], ids=["released", "tuned"])
def test_a_fit_killed_after_any_iteration_ends_with_the_same_weights(
    make_context, validated, tuning
):
    """Before the first save (of iteration 3), at a save, between saves, armed or not, before and
    after the best checkpoint; and its curves go on as if nothing had happened."""
    context, _, _ = saving_context(make_context, validated, tuning=tuning)
    whole, curve = Purer().fit(context), context.log.steps
    adversarial = [step for step, values in curve if values.get("adversarial")]
    armed = [step for step, values in curve if values.get("armed")]
    assert len(adversarial) >= 2
    assert tuning or {3, 6, 9} & set(armed), "no save holds an armed switch"
    for kill in KILLS[validated, bool(tuning)]:
        killed, saved, _ = saving_context(make_context, validated, kill=kill, tuning=tuning)
        with pytest.raises(Interrupted):
            Purer().fit(killed)
        before_validation = validated and kill % 3 == 0
        assert len(saved) == (kill - 1) // 3 + before_validation
        resumed, _, seen = saving_context(
            make_context, validated, resume=loaded(saved), tuning=tuning
        )
        assert same(Purer().fit(resumed), whole), kill
        first = 3 * len(saved) + 1
        assert min(seen) == first
        later = [point for point in curve if point[0] >= first]
        assert [point for point in resumed.log.steps if point[0] >= first] == later


def test_a_fit_killed_twice_ends_with_the_same_weights(make_context):
    whole = Purer().fit(saving_context(make_context, True)[0])
    saved = []
    for kill in (5, 8):
        killed, saves, _ = saving_context(make_context, True, loaded(saved), kill)
        with pytest.raises(Interrupted):
            Purer().fit(killed)
        saved = saves or saved
    resumed, _, seen = saving_context(make_context, True, loaded(saved))
    assert same(Purer().fit(resumed), whole)
    assert min(seen) == 7


def test_a_checkpoint_holds_every_stream(make_context):
    """Each of them has moved between the first save and the third."""
    context, saved, _ = saving_context(
        make_context, False, tuning={"augment_flip": True}, teachers_per_iteration=1
    )
    Purer().fit(context)
    first, second = (loaded(saved[:n])["source"] for n in (1, 3))
    for read in (
        lambda source: source["pixels"]["jitter"],
        lambda source: source["tasks"],
        lambda source: source["adversarial_tasks"],
        lambda source: source["teachers"],
        lambda source: source["augmentation"],
    ):
        assert read(first).dtype == torch.uint8
        assert not torch.equal(read(first), read(second))


@pytest.mark.parametrize(
    ("pixel_lr", "words"),
    [
        (1e38, ["outer loss is nan at meta-iteration 1;", "lower outer_lr or pixel_lr"]),
        (1e18, ["inversion term", "at meta-iteration 2;", "lower pixel_lr or set clip_pixels"]),
    ],
)
def test_pixels_that_run_away_are_named_with_the_remedy(make_context, pixel_lr, words):
    """1e18 passes the meta-model, which normalises, and overflows where it is squared."""
    with pytest.raises(BenchError) as caught:
        Purer().fit(make_context(total=5, pixel_lr=pixel_lr))
    assert all(word in str(caught.value) for word in words), caught.value
    assert "no earlier state was saved" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("term", "at"),
    [("cross_entropy", 1), ("cross_entropy", 5), ("bn_statistics", 5), ("total_variation", 5),
     ("l2", 5)],
)  # fmt: skip
def test_a_term_that_is_not_finite_is_named_and_the_last_good_state_kept(
    make_context, monkeypatch, term, at
):
    gradient_of, calls = PixelStep.inversion_gradient, []

    def spoiled(self, *teachers):
        gradient, terms = gradient_of(self, *teachers)
        calls.append(1)
        if len(calls) == at:
            terms = terms | {term: terms[term] * float("nan"), "inversion": terms[term] + math.nan}
        return gradient, terms

    context, saved, _ = saving_context(make_context, False)
    with monkeypatch.context() as patch:
        patch.setattr(PixelStep, "inversion_gradient", spoiled)
        with pytest.raises(
            BenchError, match=f"inversion term {term} is nan at meta-iteration {at};"
        ):
            Purer().fit(context)
    assert len(saved) == (at - 1) // 3
    if term == "l2":  # what is saved does not depend on the term
        whole = Purer().fit(saving_context(make_context, False)[0])
        resumed, _, _ = saving_context(make_context, False, loaded(saved))
        assert same(Purer().fit(resumed), whole)


def test_fit_changes_no_teacher_and_no_global_stream(make_context, monkeypatch):
    context = make_context(total=4, **SETTINGS)
    prebuilt = context.build_net(context.generator("any"))
    before = [deepcopy(t.net.state_dict()) for t in context.pool]
    state = torch.get_rng_state()
    Purer().fit(replace(context, build_net=lambda generator: deepcopy(prebuilt)))
    assert torch.equal(torch.get_rng_state(), state)
    for teacher, old in zip(context.pool, before, strict=True):
        assert same(teacher.net.state_dict(), old)
        assert not teacher.net.training
        assert all(p.grad is None and not p.requires_grad for p in teacher.net.parameters())


def test_config_s_meta_iterations_win_over_the_budget(make_context):
    context = make_context(total=30, meta_iterations=3)
    Purer().fit(context)
    assert [step for step, values in context.log.steps if "inversion" in values] == [1, 2, 3]
    assert list(context.log.grids)[-1] == "pseudo images, end"


def test_config_s_own_start_and_rate_win_over_the_protocol(make_context):
    chosen = {"initialisation": "random", "outer_lr": 0.01}
    config = Purer().fit(make_context(total=3, **chosen))
    protocol = Purer().fit(make_context(total=3, protocol=chosen))
    assert same(config, protocol)
    assert not same(config, Purer().fit(make_context(total=3)))


def test_a_factor_multiplies_the_budget(make_context):
    context = make_context(total=3, meta_iterations_factor=2)
    Purer().fit(context)
    assert max(step for step, _ in context.log.steps) == 6


def test_warm_up_comes_before_the_first_meta_step_and_pixels_rest_between_steps(make_context):
    context = make_context(total=5, pixel_warmup=3, pixel_every=2)
    Purer().fit(context)
    steps = [step for step, values in context.log.steps if "inversion" in values]
    assert steps == [-2, -1, 0, 1, 3, 5]
    assert context.log.counts["pseudo_images"] == len(steps) * 6 * 4


def test_a_zero_head_is_where_training_starts(make_context):
    """Without a meta step that moves it, the head that is tested is zero."""
    fitted = Purer().fit(make_context(total=1, zero_head=True, outer_lr=1e-30))
    heads = [value for name, value in fitted.items() if name.startswith("head.")]
    assert all(float(value.abs().max()) < 1e-20 for value in heads)
    body = [value for name, value in fitted.items() if name.endswith("convs.0.weight")]
    assert float(body[0].abs().max()) > 0.01


def test_the_tuned_preset_is_a_valid_config_that_starts_from_the_best_teacher(make_context):
    context = make_context(total=2, **{**Purer.presets["tuned"], "pixel_warmup": 1})
    fitted = Purer().fit(context)
    best = max(context.pool, key=lambda teacher: teacher.accuracy).net.state_dict()
    scale = context.config.feature_scale
    torch.testing.assert_close(
        fitted["norms.3.weight"], scale * best["norms.3.weight"], atol=1e-2, rtol=0
    )
    torch.testing.assert_close(fitted["convs.0.weight"], best["convs.0.weight"], atol=1e-2, rtol=0)


def test_initialisation_and_curriculum_matter(make_context):
    base = Purer().fit(make_context(total=5, **SETTINGS))
    plain = Purer().fit(make_context(total=5, curriculum=False))
    fresh = Purer().fit(make_context(total=5, protocol={"initialisation": "random"}, **SETTINGS))
    assert not same(base, plain)
    assert not same(base, fresh)


def test_learner_is_the_cell_s_around_the_fit(make_context):
    context = make_context(total=1)
    fitted = {"weight": torch.ones(2)}
    learner = Purer().learner(
        replace(context, make_learner=lambda state, bn=None: ("cell", state)), fitted
    )
    assert learner == ("cell", fitted)


def test_a_pool_that_fits_is_not_skipped(make_context):
    assert Purer().skip(make_context()) is None


def test_skips_name_the_reason(make_context):
    context = make_context()
    assert "6 classes, n_way is 7" in Purer().skip(replace(context, shape=TaskShape(7, 1)))
    first, second = context.pool
    mixed = Pool([first, replace(second, mean=(0.1, 0.1, 0.1))], sha256="mixed")
    assert "normalised differently" in Purer().skip(replace(context, pool=mixed))


def test_too_few_pseudo_images_are_refused(make_context):
    with pytest.raises(BenchError, match="leaves no query"):
        Purer().fit(replace(make_context(pseudo_images_per_class=2), shape=TaskShape(3, 2)))
