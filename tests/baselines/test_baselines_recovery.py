"""Methods that recover images through a generator, BiDf-MKD and FREE: their fits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from baselines.recovery._generator import fresh_generator
from baselines.recovery._recovered_tasks import TeacherRounds, scaled
from baselines.recovery.bidf_mkd import BidfMkd
from baselines.recovery.free import Free
from bench.contract import Pool, TaskShape
from bench.nets.base import initialise
from tests.baselines.recovery_fits import (
    METHODS,
    context_of,
    conv_pool,
    seeded,
)


def test_rounds_take_every_teacher_before_any_again():
    rounds = TeacherRounds(5, seeded())
    taken = [rounds.take(2) for _ in range(5)]
    flat = [number for pair in taken for number in pair]
    assert sorted(flat[:5]) == sorted(flat[5:]) == list(range(5))


def test_counts_are_the_released_ones_at_the_released_budget_and_smaller_below():
    assert scaled(200, 60_000, 4) == scaled(200, 10**6, 4) == 200
    assert (scaled(200, 400, 4), scaled(100, 400, 4), scaled(200, 400, 2)) == (57, 29, 16)
    assert scaled(3, 1, 2) == 1


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_fit_logs_curves_pictures_and_counters(method):
    context = context_of(method)
    method().fit(context)
    names = {name for _, name, _ in context.log.points}
    assert {"outer_loss", "query_accuracy", "distillation", "visits"} <= names
    assert {"recovered images, start", "recovered images, end"} <= context.log.pictures.keys()
    assert all(0 <= float(p.min()) <= float(p.max()) <= 1 for p in context.log.pictures.values())
    assert context.log.counters["pseudo_images"] > 0
    assert context.log.counters["train_tasks"] == 4 * 4


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_pool_that_cannot_be_served_is_refused_with_the_reason(method):
    pool = conv_pool()
    other = Pool([pool[0], replace(pool[1], mean=(0.1,) * 3)], "")
    assert "normalised" in method().skip(context_of(method, other))
    assert "n_way is 9" in method().skip(
        context_of(method, Pool([pool[0]], ""), shape=TaskShape(9, 1, 3))
    )
    assert "outputs" in method().skip(context_of(method, shape=TaskShape(3, 1, 3)))
    assert method().skip(context_of(method)) is None


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_more_shots_than_images_recover_more(method):
    context = context_of(method, shape=TaskShape(5, 6, 3), budget={"meta_iterations": 1})
    method().fit(context)
    assert context.log.counters["train_tasks"] == 4


def test_teachers_learn_nothing_of_batch_norm_unless_asked():
    config = Free.Config.model_validate
    assert Free.needs_of(config({})) == frozenset()
    assert Free.needs_of(config({"bn_weight": 0.1})) == {"bn_statistics"}
    assert BidfMkd.needs_of(BidfMkd.Config()) == frozenset()
    assert json.dumps(Free.Config().model_dump())


def test_a_bn_weight_changes_what_free_recovers():
    fits = [Free().fit(context_of(Free, config={"bn_weight": w})) for w in (0.0, 1.0)]
    assert not torch.equal(fits[0]["convs.0.weight"], fits[1]["convs.0.weight"])


def test_a_generator_draws_from_its_generator_alone_and_fills_any_size():
    state = torch.get_rng_state()
    nets = [fresh_generator(8, 4, 30, seeded(), "cpu") for _ in range(2)]
    assert torch.equal(state, torch.get_rng_state())
    assert nets[0](torch.zeros(2, 8)).shape == (2, 3, 30, 30)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
    initialise(nets[0], seeded(5))  # the suite's own initialiser knows all of its layers
