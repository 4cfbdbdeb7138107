"""What every registered method must do, on two tiny pools, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench import registry
from bench.contract import NetSpec, Pool, TaskShape
from bench.nets.build import build_net
from bench.suites.expand import serving_learners
from tests.helpers import tiny_context, tiny_net, tiny_pool, tiny_tasks

METHODS = registry.names("method")
SHAPE = TaskShape(5, 2, 3)
QUICK = {
    "inversion_steps": 2,
    "images_per_class": 2,
    "meta_iterations": 2,
    "steps": 3,
    "max_rounds": 2,
    "generation_steps": 2,
    "directions": 2,
    "generator_width": 4,
    "latent_size": 8,
    "distillation_steps": 1,
    "warmup": 1,
    "batch": 8,
}
"""Settings that shorten a fit, for the methods that have them."""

DRAWS = {
    "random",
    "purer",
    "oracle_maml",
    "oracle_protonet",
    "git_rebasin",
    "fisher",
    "regmean",
    "zipit",
    "dro",
    "bidf_mkd",
    "free",
    "single_dfkd",
    "distill_average",
    "distill_ensemble",
}
"""Methods whose fit depends on the seed; the others take what the pool gives."""


def same_pool() -> Pool:
    pool = tiny_pool(("conv4",) * 3, 5, 16, torch.Generator().manual_seed(0))
    start = tiny_net(torch.Generator().manual_seed(1), "conv4", 5, 16).state_dict()
    return Pool(pool.teachers, pool.sha256, {pool[0].spec: start})


def mixed_pool() -> Pool:
    return tiny_pool(("conv4", "resnet10", "conv4"), 5, 16, torch.Generator().manual_seed(0))


def context_of(name: str, pool: Pool, seed: int = 0, learner: str | None = None):
    method = registry.load("method", name)
    config = {key: value for key, value in QUICK.items() if key in method.Config.model_fields}
    if name == "zipit":
        config["head"] = "average"  # so that the seed is seen in the merge, not in a fresh head
    return tiny_context(
        method,
        pool if method.uses_pool else Pool([], ""),
        shape=SHAPE,
        learner=learner,
        config=config,
        seed=seed,
        budget={"meta_iterations": 2},
    )


def tasks():
    return tiny_tasks(torch.Generator().manual_seed(2), 3, SHAPE)


def learner_of(context, name: str):
    method = registry.load("method", name)()
    return method.learner(context, method.fit(context))


def predicted(learner, batch):
    return learner.predict(batch.support_x, batch.support_y, batch.query_x)


@pytest.mark.parametrize("name", METHODS)
def test_declarations(name):
    method = registry.load("method", name)
    assert method.name == name
    assert (method.__doc__ or "").strip()
    assert serving_learners(method)[0] == method.default_learner
    assert "released" in method.presets
    assert all(preset in method.presets for preset, _ in method.learner_presets)
    assert all(issubclass(kind, method.learner_needs) for _, kind in method.learner_presets)
    for preset in [*method.presets.values(), *method.learner_presets.values()]:
        config = method.Config.model_validate(dict(preset))
        assert method.needs_of(config) <= {
            "same_architecture",
            "shared_initialisation",
            "bn_statistics",
        }
        assert method.knowledge_of(config) in ("parameters", "inversion", "features", "real_data")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["same", "mixed"])
def test_a_pool_is_served_or_refused_with_a_reason(name, kind):
    """Fits follow their seed, change no teacher, touch no global state, and predict every task."""
    pool = same_pool() if kind == "same" else mixed_pool()
    before = [{k: v.clone() for k, v in t.net.state_dict().items()} for t in pool]
    state = torch.get_rng_state()
    context = context_of(name, pool)
    method = registry.load("method", name)
    if "same_architecture" in method.needs_of(context.config) and kind == "mixed":
        pytest.skip("the harness refuses the pool before the method sees it")
    reason = method().skip(context)
    if reason is not None:
        assert kind == "mixed"
        assert reason.strip()
        return
    first, second = method().fit(context), method().fit(context_of(name, pool))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    learner = method().learner(context, first)
    logits = predicted(learner, tasks())
    assert logits.shape == (3, 15, 5)
    assert logits.isfinite().all()
    assert not logits.requires_grad
    assert learner.n_parameters > 0
    assert torch.equal(state, torch.get_rng_state())
    for teacher, weights in zip(pool, before, strict=True):
        assert all(torch.equal(v, weights[k]) for k, v in teacher.net.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in teacher.net.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.net.modules())


@pytest.mark.parametrize("name", METHODS)
def test_another_seed_gives_another_result_where_the_method_draws(name):
    pool = same_pool()
    fits = [registry.load("method", name)().fit(context_of(name, pool, seed)) for seed in (0, 1)]
    differ = any(not torch.equal(fits[0][key], fits[1][key]) for key in fits[0])
    assert differ == (name in DRAWS)


@pytest.mark.parametrize("name", METHODS)
def test_tasks_at_once_are_tasks_one_by_one(name):
    method = registry.load("method", name)
    fitted = method().fit(context_of(name, same_pool()))
    batch = tasks()
    for kind in serving_learners(method):
        learner = method().learner(context_of(name, same_pool(), learner=kind), fitted)
        whole = predicted(learner, batch)
        for index in range(len(batch)):
            one = replace(
                batch,
                **{
                    field: getattr(batch, field)[index : index + 1]
                    for field in ("support_x", "support_y", "query_x", "query_y")
                },
            )
            torch.testing.assert_close(
                predicted(learner, one)[0], whole[index], rtol=1e-3, atol=1e-4
            )


@pytest.mark.cuda
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_cuda(name, cuda):
    pool = same_pool()
    for teacher in pool:
        teacher.net.to(cuda)
    context = context_of(name, pool)
    net = NetSpec("conv4", 5, 16)

    def make_learner(state):
        model = build_net(net)
        model.load_state_dict(state)
        learner = context.make_learner({k: v.cpu() for k, v in state.items()})
        learner.net.to(cuda)
        return learner

    moved = replace(
        context,
        device=cuda,
        build_net=lambda generator: context.build_net(generator).to(cuda),
        make_learner=make_learner,
        train_tasks=context.train_tasks
        and (lambda generator, n: context.train_tasks(generator, n).to(cuda)),
    )
    logits = predicted(learner_of(moved, name), tasks().to(cuda))
    assert logits.device.type == "cuda"
    assert logits.isfinite().all()
