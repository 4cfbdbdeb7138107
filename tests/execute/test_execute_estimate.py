"""What a plan says that cells will take, and how it is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.cli.folding import WIDTH
from bench.cli.main import main
from bench.contract import NetSpec
from bench.execute import estimate
from bench.execute.estimate import Estimator
from bench.execute.plan import make_plan
from bench.execute.rates import Took, describe_work
from bench.results.files import write_json
from bench.results.store import mark_done
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite

SUITE = """
title: one of each kind
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets: {micro: {max_teachers: 3}}
k_shot: [1, 5]
n_test_tasks: 100
methods:
  - {method: average, learner: protonet}
  - {method: purer, learner: [maml, protonet]}
  - {method: distill_ensemble}
  - {method: ensemble_centroids}
"""
PASS = 1e-3
"""Seconds of a measured pass in these tests."""
TRAINING_PASSES = 2.5

Estimate = Callable[..., dict]


def bench(*words: str) -> int:
    """Run the command line and return its exit status."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return end.value.code


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[NetSpec]:
    """Every pass takes a millisecond per image, at twice the side four; returns the measured."""
    specs: list[NetSpec] = []

    def seconds(spec: NetSpec, device: torch.device) -> float:
        specs.append(spec)
        return PASS * (spec.image_size / 32) ** 2

    monkeypatch.setattr(estimate, "pass_seconds", seconds)
    return specs


@pytest.fixture
def estimator(
    suite: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Estimator]:
    """Returns a maker of estimators that know just what they are given, in an empty cache."""
    data = make_plan(suite, [], [], None, cache, None, {}).data

    def make(*known: Took, device: str = "cpu", trained: dict | None = None) -> Estimator:
        own = [one for one in known if one.here]
        stored = [one for one in known if not one.here]
        monkeypatch.setattr(estimate, "took_here", lambda *_: own)
        monkeypatch.setattr(estimate, "stored_rates", lambda: (stored, TRAINING_PASSES))
        monkeypatch.setattr(estimate, "trained_here", lambda *_: trained or {})
        return Estimator(data, tmp_path / "runs", cache, torch.device(device))

    return make


def cell_of(suite: str, method: str, k_shot: int = 1, learner: str | None = None) -> Cell:
    cells = expand(*read_suite(suite))
    return next(
        one
        for one in cells
        if (one.method, one.k_shot) == (method, k_shot) and learner in (None, one.learner)
    )


def like(cell: Cell, fit=None, task=None, repeated=None, memory=None, here=False, **work) -> Took:
    """Return what a cell of three Conv4 teachers took, its work changed as given."""
    described = describe_work(cell, 32, ["conv4"] * 3)._replace(**work)
    return Took(described, fit, cell.method == "purer", task, repeated, memory, here)


def pool_s(cell: Cell) -> float:
    """Return the seconds of training the three teachers: 180 glyphs per class, by hand."""
    images = 3 * 5 * 180 * 0.8
    return TRAINING_PASSES * images * cell.budget.teacher_epochs * PASS


def test_stored_passes_become_seconds_of_this_machine(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    found = estimator(like(cell, fit=2000.0, task=80.0, memory=7)).estimate(cell)
    assert found["seconds"] == pytest.approx(pool_s(cell) + 2 + 100 * 0.08, abs=0.1)
    assert found["memory_bytes"] == 7
    assert (found["teachers"], found["teachers_stored"]) == (3, 0)


def test_times_of_this_machine_are_as_long_as_it_is_busy_now(
    suite: str, estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "slowdown", lambda *_: 3.0)
    cell = cell_of(suite, "average")
    busy_then = like(cell, fit=20.0, task=1.0, here=True)
    found = estimator(busy_then).estimate(cell)
    assert found["seconds"] == pytest.approx(pool_s(cell) + 20 + 100 * 1.0, abs=0.1)
    alone = estimator(busy_then._replace(undisturbed=True)).estimate(cell)
    assert alone["seconds"] == pytest.approx(pool_s(cell) + 3 * (20 + 100 * 1.0), abs=0.1)


def test_teachers_take_as_long_as_those_that_were_trained_here(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    known = like(cell, fit=0.0, task=0.0)
    others = estimator(known, trained={("resnet10", 32): 9.0, ("conv4", 84): 9.0})
    assert others.estimate(cell)["seconds"] == pytest.approx(pool_s(cell), abs=0.1)
    own = estimator(known, trained={("conv4", 32): 2 * TRAINING_PASSES * PASS})
    assert own.estimate(cell)["seconds"] == pytest.approx(2 * pool_s(cell), abs=0.1)


def test_a_meta_trained_fit_grows_with_iterations_and_images(suite: str, estimator) -> None:
    cell = cell_of(suite, "purer", 1, "maml")
    (iterations, every) = (cell.budget.meta_iterations, cell.budget.validate_every)
    known = like(cell, 1000.0, 80.0, iterations=iterations // 3, images=40, n_teachers=7)
    found = estimator(known).estimate(cell)
    fit = 1.0 * 3 * (80 / 40)
    task = 0.08 * (80 / 40)
    validated = (1 + -(-iterations // every)) * cell.budget.n_val_tasks
    expected = pool_s(cell) + fit + (100 + validated) * task
    assert found["seconds"] == pytest.approx(expected, abs=0.1)


def test_a_student_s_fit_grows_with_its_steps_alone(suite: str, estimator) -> None:
    cell = cell_of(suite, "distill_ensemble", 5)
    steps = cell.method_config["steps_per_meta_iteration"] * cell.budget.meta_iterations
    known = like(cell, 1000.0, 10.0, iterations=steps // 3, images=40, n_teachers=7)
    found = estimator(known._replace(grows=True)).estimate(cell)
    assert found["seconds"] == pytest.approx(pool_s(cell) + 3 + 100 * 0.01 * 100 / 40, abs=0.1)
    config = cell.method_config | {"steps": 4 * steps}
    found = estimator(known._replace(grows=True)).estimate(
        cell.model_copy(update={"method_config": config})
    )
    assert found["seconds"] == pytest.approx(pool_s(cell) + 12 + 2.5, abs=0.1)


def test_other_fits_grow_with_teachers_alone(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    known = like(cell, fit=5000.0, task=10.0, iterations=1, n_teachers=7)
    found = estimator(known).estimate(cell)
    assert found["seconds"] == pytest.approx(pool_s(cell) + 5 * 4 / 8 + 1, abs=0.1)


def test_larger_images_take_longer_by_the_measured_pass(
    suite: str, estimator, measured: list[NetSpec]
) -> None:
    cell = cell_of(suite, "average")
    own = like(cell, fit=40.0, task=0.4, here=True, image_size=64)
    found = estimator(own).estimate(cell)
    assert found["seconds"] == pytest.approx(pool_s(cell) + 10 + 100 * 0.1, abs=0.1)
    assert {spec.image_size for spec in measured} == {32, 64}


def test_this_machine_s_own_times_come_first_among_equals(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    stored = like(cell, fit=0.0, task=500.0)
    own = [like(cell, fit=0.0, task=task, here=True) for task in (0.01, 0.02, 0.9)]
    elsewhere = like(cell, fit=0.0, task=7.0, here=True, learner="maml")
    seconds = pool_s(cell) + 100 * 0.02
    found = estimator(stored, *own, elsewhere).estimate(cell)
    assert found["seconds"] == pytest.approx(seconds, abs=0.1)


def test_a_method_that_never_ran_has_no_time(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    found = estimator(like(cell, fit=1.0, task=1.0, method="another")).estimate(cell)
    assert found["seconds"] is None
    assert found["memory_bytes"] is None


def test_memory_is_not_guessed_from_other_networks(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    for other in ({"image_size": 84}, {"net": "resnet10"}, {"architectures": ("conv4", "x")}):
        known = like(cell, fit=1.0, task=1.0, memory=7, **other)
        assert estimator(known).estimate(cell)["memory_bytes"] is None
    other_shot = like(cell, fit=1.0, task=1.0, memory=7, images=100)
    assert estimator(other_shot).estimate(cell)["memory_bytes"] == 7


def test_rates_of_cpus_say_nothing_of_other_devices(suite: str, estimator) -> None:
    cell = cell_of(suite, "average")
    stored, own = like(cell, fit=1.0, task=1.0), like(cell, fit=1.0, task=1.0, here=True)
    assert estimator(stored, device="meta").estimate(cell)["seconds"] is None
    assert estimator(own, device="meta").estimate(cell)["seconds"] is not None


def test_what_cells_share_is_counted_once(suite: str, estimator) -> None:
    first, second = (cell_of(suite, "distill_ensemble", k_shot) for k_shot in (1, 5))
    known = [like(first, fit=5000.0, task=100.0), like(second, repeated=1.0)]
    both = estimator(*known)
    assert both.estimate(first)["seconds"] == pytest.approx(pool_s(first) + 5 + 10, abs=0.1)
    assert both.estimate(second)["seconds"] == pytest.approx(0.1, abs=0.01)
    alone = estimator(*known).estimate(second)["seconds"]
    assert alone == pytest.approx(pool_s(second) + 5 + 10 * 100 / 80, abs=0.1)


def test_a_pool_is_looked_up_once_and_another_seed_has_another(
    suite: str, estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[int] = []
    plan = estimate.plan_teachers
    monkeypatch.setattr(
        estimate,
        "plan_teachers",
        lambda cell, data: looked_up.append(cell.seed) or plan(cell, data),
    )
    cells = [cell_of(suite, "average", k_shot) for k_shot in (1, 5)] + [cell_of(suite, "purer")]
    other = cells[0].model_copy(update={"seed": 1})
    both = estimator(like(cells[0], fit=0.0, task=0.0))
    found = [both.estimate(cell) for cell in (*cells, other)]
    assert looked_up == [0, 1]
    assert [one["teachers"] for one in found] == [3, 3, 3, 3]
    assert [one["seconds"] for one in found[:2]] == [pytest.approx(pool_s(other), abs=0.1), 0.0]
    assert found[3]["seconds"] == pytest.approx(pool_s(other), abs=0.1)


def restamp(path: Path, **stamp: object) -> None:
    """Change what a stored fit or teacher says of who made it."""
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | stamp)


def test_a_plan_beside_its_own_run(
    suite: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], estimator
) -> None:
    """Before the run all is to do; after it no fit and no teacher is, in another runs folder.

    A fit or a teacher that other code or another number of threads made is to do again.
    """
    only = ("--only=method=average", "--set=budget.teacher_epochs=1", "--set=n_test_tasks=8")
    places = (f"--cache={cache}", "--json")
    assert bench("plan", suite, *only, *places, f"--runs={tmp_path / 'a'}") == 0
    before = json.loads(capsys.readouterr().out)
    assert [row["teachers_stored"] for row in before] == [0, 0]
    assert before[0]["seconds"] > before[1]["seconds"] > 0  # the pool and the fit are shared
    run = ("run", suite, *only, f"--cache={cache}", f"--runs={tmp_path / 'a'}", "--no-mlflow")
    assert bench(*run, "--no-figures") == 0
    capsys.readouterr()
    assert bench("plan", suite, *only, *places, f"--runs={tmp_path / 'a'}") == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"done"}
    assert bench("plan", suite, *only, *places, f"--runs={tmp_path / 'b'}") == 0
    after = json.loads(capsys.readouterr().out)
    assert [row["teachers_stored"] for row in after] == [3, 3]
    assert all(row["memory_bytes"] > 2**28 for row in after)

    cell = make_plan(suite, [only[1][6:], only[2][6:]], [only[0][7:]], None, cache, None, {}).cells[
        0
    ]
    known, test_s = like(cell, fit=2000.0, task=80.0), 8 * 0.08
    assert estimator(known).estimate(cell)["seconds"] == pytest.approx(test_s, abs=0.1)
    (fit,) = cache.glob("fits/*/fit.json")
    restamp(fit, code={"digest": "0" * 64})
    mark_done(fit.parent)
    assert estimator(known).estimate(cell)["seconds"] == pytest.approx(test_s + 2, abs=0.1)
    for number, card in enumerate(sorted(cache.glob("teachers/*/teacher.json"))):
        restamp(card, **({"threads": 99} if number % 2 else {"code": {"digest": "0" * 64}}))
    stale = estimator(known).estimate(cell)
    assert stale["seconds"] == pytest.approx(test_s + 2 + pool_s(cell), abs=0.1)
    assert (stale["teachers"], stale["teachers_stored"]) == (3, 0)


def test_unknown_times_are_said_in_table_and_sum(
    suite: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    rates, training = estimate.stored_rates()
    known = [one for one in rates if one.work.method != "purer"]
    monkeypatch.setattr(estimate, "stored_rates", lambda: (known, training))
    assert bench("plan", suite, f"--cache={cache}", f"--runs={tmp_path}") == 0
    out = capsys.readouterr().out
    assert out.partition(" cells, ")[0].count(" unknown ") == 4
    assert "to go" in out
    assert "and 4 cells of unknown time" in out


@pytest.mark.parametrize("name", ["hazards", "mh_subset"])
def test_a_plan_is_readable_in_a_pipe(
    name: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert bench("plan", name, f"--cache={cache}", f"--runs={tmp_path}", f"--data={tmp_path}") == 0
    table = capsys.readouterr().out.partition(" cells, ")[0]
    assert "…" not in table
    assert max(len(line) for line in table.splitlines()) <= WIDTH
    wanted = {"hazards": "pseudo_split=fixed, task_list=frozen", "mh_subset": "MH all 3"}
    assert wanted[name] in table
