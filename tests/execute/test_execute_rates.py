"""The rates in the package follow from the stored results, and say what those took."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import registry
from bench.contract import Learner, NetSpec
from bench.execute import passes
from bench.execute.machine import describe_device
from bench.execute.rates import describe_work, stored_rates, took, took_here, trained_here
from bench.execute.timing import Elapsed
from bench.learners.protonet import ProtoNet
from bench.nets.base import Backbone
from bench.nets.norm import Norm, running_norm
from bench.results.files import write_json
from bench.results.find import find_records
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from tests.execute import write_rates

RESULTS = Path(__file__).resolve().parents[2] / "results"
SIZES = {"glyphs": 32}


def test_the_package_s_rates_are_those_of_the_stored_results() -> None:
    current = write_rates.text(write_rates.rates())
    assert write_rates.PATH.read_text(encoding="utf-8") == current, (
        "bench/execute/rates.json is stale; run tox -e report"
    )


def test_rates_give_back_what_a_stored_cell_took() -> None:
    rates, training_passes = stored_rates()
    (purer,) = (
        one
        for one in rates
        if (one.work.method, one.work.learner, one.work.preset) == ("purer", "maml", "tuned")
        and (one.work.n_teachers, one.work.images) == (4, 80)
    )
    # results/glyphs, processor seconds: fit 34.1, 200 tasks 4.35, an image of ProtoNet 0.190e-3
    assert purer.fit * 0.190e-3 == pytest.approx(34.1, rel=0.05)
    assert purer.task * 0.190e-3 == pytest.approx(4.35 / 200, rel=0.05)
    assert purer.grows
    students = [one for one in rates if one.work.method == "distill_ensemble" and one.fit]
    assert all(one.grows for one in students)
    assert {one.work.iterations for one in students} >= {2 * 40, 5 * 40, 8 * 60}
    assert 1 < training_passes < 4  # a forward pass, a backward pass of two, a fifth held out


def test_every_method_with_results_has_rates() -> None:
    rates, _ = stored_rates()
    fitted = {one.work.method for one in rates if one.fit is not None}
    assert fitted == {
        stored.record.method
        for stored in find_records(RESULTS)
        if stored.record.status == "done" and not stored.record.fit.reused
    }


def test_every_cell_of_glyphs_has_rates_of_its_own() -> None:
    """Also those whose method gained settings since, which have their defaults in both."""
    measured = {one.work for one in stored_rates()[0]}
    for cell in expand(*read_suite("glyphs")):
        pool = ["conv4"] * 4 if registry.load("method", cell.method).uses_pool else []
        assert describe_work(cell, SIZES["glyphs"], pool) in measured, cell.label


def test_a_record_of_a_method_that_is_not_installed_or_was_otherwise_is_left_out(
    tmp_path: Path,
) -> None:
    here = describe_device(torch.device("cpu"))
    record = find_records(RESULTS / "glyphs")[0].record.model_copy(update={"device": here})
    for number, change in enumerate(
        ({}, {"method": "of_another_package"}, {"method_config": {"of": "another version"}})
    ):
        other = record.model_copy(update=change)
        write_json(tmp_path / "glyphs" / str(number) / "record.json", other.model_dump())
    assert len(took_here(tmp_path, here, SIZES)) == 1


def test_a_reused_fit_and_reused_embeddings_are_no_times_of_their_own() -> None:
    by_reuse = {}
    for stored in find_records(RESULTS / "glyphs"):
        if stored.record.method == "distill_ensemble":
            by_reuse[stored.record.fit.reused] = stored.record
    made, reused = took(by_reuse[False], SIZES), took(by_reuse[True], SIZES)
    assert (made.fit, made.repeated_task) == (by_reuse[False].timing.fit_cpu_s, None)
    assert (reused.fit, reused.task) == (None, None)
    assert reused.repeated_task == by_reuse[True].timing.test_cpu_s / 200


def test_what_other_programs_took_of_a_single_thread_is_no_time_of_its_own() -> None:
    record = next(
        one.record
        for one in find_records(RESULTS / "glyphs")
        if one.record.status == "done" and not one.record.fit.reused
    )
    timing = record.timing.model_copy(update={"fit_cpu_s": 2.0, "test_cpu_s": 3.0})
    device = record.device.model_copy(update={"type": "cpu", "threads": 1})
    one = took(record.model_copy(update={"timing": timing, "device": device}), SIZES)
    assert (one.fit, one.undisturbed) == (2.0, True)
    assert 3.0 / record.n_test_tasks in (one.task, one.repeated_task)
    for change in ({"threads": 2}, {"type": "cuda"}):
        other = {"timing": timing, "device": device.model_copy(update=change)}
        one = took(record.model_copy(update=other), SIZES)
        assert (one.fit, one.undisturbed) == (record.timing.fit_s, False)


def test_images_of_unknown_size_tell_nothing() -> None:
    record = find_records(RESULTS / "glyphs")[0].record
    assert took(record, SIZES) is not None
    assert took(record, {"birds": 64}) is None


def test_records_of_this_machine_only_are_its_own(tmp_path: Path) -> None:
    here = describe_device(torch.device("cpu"))
    mine = find_records(RESULTS / "glyphs")[0].record.model_copy(update={"device": here})
    other = mine.model_copy(update={"device": here.model_copy(update={"name": "another"})})
    for number, record in enumerate((mine, other)):
        write_json(tmp_path / "glyphs" / str(number) / "record.json", record.model_dump())
    (tmp_path / "glyphs" / "2").mkdir()
    (tmp_path / "glyphs" / "2" / "record.json").write_text("{", encoding="utf-8")
    (one,) = took_here(tmp_path, here, SIZES)
    assert one.here
    assert one._replace(here=False) == took(mine, SIZES)
    assert took_here(tmp_path / "nowhere", here, SIZES) == []


def test_teachers_trained_here_tell_the_speed_of_training(tmp_path: Path) -> None:
    here = describe_device(torch.device("cpu"))
    plan = {"architecture": "conv4", "image_size": 32}
    card = {"plan": plan, "images_per_s": 500.0, "device": "cpu", "threads": here.threads}
    cards = [card | {"images_per_s": rate} for rate in (400.0, 500.0, 1.0)]
    cards += [card | {"threads": here.threads + 1, "images_per_s": 7.0}]  # another number
    cards += [card | {"images_per_s": 0.0}, {"plan": plan}]  # never trained; of an older version
    cards += [card | {"plan": plan | {"image_size": 84}, "images_per_s": 0.0}]  # none was trained
    for number, one in enumerate(cards):
        write_json(tmp_path / "teachers" / str(number) / "teacher.json", one)
    assert trained_here(tmp_path, here) == {("conv4", 32): 1 / 400}
    assert trained_here(tmp_path / "nowhere", here) == {}


def clocked(monkeypatch: pytest.MonkeyPatch, took: Callable[[int, int], Elapsed]) -> None:
    """Give passes a clock of the test's own: `took` of a pass's number and its images."""
    now, numbers = [Elapsed()], itertools.count(1)

    def predict(self: Learner, support_x: torch.Tensor, _: object, query_x: torch.Tensor):
        now[0] = now[0].plus(took(next(numbers), support_x.shape[1] + query_x.shape[1]))
        return query_x

    monkeypatch.setattr(Elapsed, "now", lambda: now[0])
    monkeypatch.setattr(ProtoNet, "predict", predict)
    passes._measured.cache_clear()


SPEC, CPU = NetSpec("conv4", 5, 33), torch.device("cpu")


def test_spoiled_passes_are_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some passes take a thousand times as long as the others."""

    def took(number: int, images: int) -> Elapsed:
        spoiled = 1000 if number in (1, 4, 6) else 1
        return Elapsed(1e-3 * spoiled * images, 0.4e-3 * spoiled * images)

    clocked(monkeypatch, took)
    assert passes.pass_seconds(SPEC, CPU) == pytest.approx(1e-3)
    assert passes.slowdown(SPEC, CPU) == pytest.approx(2.5)


@pytest.mark.parametrize("busy", [1, 2, 9])
def test_a_busy_machine_s_pass_is_as_much_longer_as_it_is_busy(
    busy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass has a fixed cost: were it of fewer images there, each would seem to take longer."""
    clocked(monkeypatch, lambda _, images: Elapsed(busy * (s := 2e-3 + 0.2e-3 * images), s))
    idle = (2e-3 + 0.2e-3 * 77) / 77
    assert passes.pass_seconds(SPEC, CPU) == pytest.approx(busy * idle)
    assert passes.slowdown(SPEC, CPU) == pytest.approx(busy)


def test_a_pass_of_a_large_network_is_of_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, lambda _, images: Elapsed(images * 1.0, images * 1.0))
    assert passes.pass_seconds(SPEC, CPU) == pytest.approx(1.0)
    assert Elapsed.now().seconds == 4 * (1 + 2 + passes.SAMPLES)


class OnePixel(Backbone):
    """A network whose last feature map is one pixel, as that of large ones on small images."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, n_classes)

    def features(self, x: torch.Tensor, norm: Norm = running_norm) -> torch.Tensor:
        return norm(self.norm, x.mean((2, 3), keepdim=True)).flatten(1)


def test_a_pass_has_batch_statistics_where_a_feature_map_is_one_pixel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "build_net", lambda spec: OnePixel(spec.n_classes))
    passes._measured.cache_clear()
    assert passes.pass_seconds(SPEC, CPU) > 0
