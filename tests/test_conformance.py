"""What every plug-in of this distribution must do: the checks that `bench check` runs, too."""

from __future__ import annotations

import pytest
import torch

from bench import registry
from bench.suites.catalogue import names_of
from bench.suites.files import SUITES
from bench.testing.checks import checks_of, run_check, subject_of
from bench.testing.methods import same_pool
from bench.testing.rules import predicted, some_tasks

METHODS = registry.names("method", registry.OWN)
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
    "tgr",
    "single_dfkd",
    "distill_average",
    "distill_ensemble",
    "cross_teacher",
    "pleas",
}
"""Methods whose fit depends on the seed; the others take what the pool gives."""


def own_names(kind: registry.Kind) -> list[str]:
    if kind == "suite":
        return sorted(path.stem for path in SUITES.glob("*.yaml"))
    others = set(registry.names(kind)) - set(registry.names(kind, registry.OWN))
    return [name for name in names_of(kind) if name not in others]


PLUG_INS = [
    pytest.param(kind, name, check, id=f"{name}-{check.__name__}")
    for kind in ("method", "learner", "net", "dataset", "calibration", "protocol", "budget")
    for name in own_names(kind)
    for check in checks_of(kind)
]


@pytest.mark.parametrize(("kind", "name", "check"), PLUG_INS)
def test_plug_ins_do_what_is_asked_of_them(kind, name, check):
    result = run_check(kind, name, check, subject_of(kind, name))
    assert result.outcome != "failed", result.detail


@pytest.mark.parametrize("name", own_names("suite"))
def test_suites_name_what_is_registered(name):
    subject = subject_of("suite", name)
    for check in checks_of("suite"):
        result = run_check("suite", name, check, subject)
        assert result.outcome == "ok", result.detail


@pytest.mark.parametrize("name", METHODS)
def test_another_seed_gives_another_fit_where_the_method_draws(name):
    """Heads that are drawn afresh do not count."""
    subject = subject_of("method", name)
    first, second = (subject.fit(seed=seed).fitted for seed in (0, 1))
    entries = [entry for entry in first if not entry.startswith("head.")]
    differ = any(not torch.equal(first[entry], second[entry]) for entry in entries)
    assert differ == (name in DRAWS)


@pytest.mark.cuda
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_cuda(name, cuda):
    subject = subject_of("method", name)
    pool = same_pool.__wrapped__("conv4")
    for teacher in pool:
        teacher.net.to(cuda)
    context, method = subject.context(pool, device=cuda), subject.method()
    logits = predicted(method.learner(context, method.fit(context)), some_tasks().to(cuda))
    assert logits.device.type == "cuda"
