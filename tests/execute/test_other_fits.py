"""A fit that starts from the fit of another method: stored, shared, and not counted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.contract import FitContext, OtherFit, TaskShape
from bench.errors import BenchError
from bench.execute.fitting import Fitted, fit_cell
from bench.execute.state import RunState
from bench.results.codebase import installed_code
from bench.results.store import DONE
from purer.method import Purer
from tests.helpers import cell_of, toy_data


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> RunState:
    folder = tmp_path_factory.mktemp("other fits")
    device, data = torch.device("cpu"), {"glyphs": toy_data()}
    return RunState("toy", folder / "runs", folder / "cache", device, data, "bench run")


def other_fit_of(fitted: Fitted) -> OtherFit:
    """Return what serves fits to a cell whose configuration names `average`."""
    served = fitted.given.other_fit
    cell = served.cell.model_copy(update={"method_config": {"other_fit": "average"}})
    return replace(served, cell=cell)


def test_the_other_fit_is_that_of_the_method_s_own_cell(state: RunState) -> None:
    fitted = fit_cell(cell_of("best_teacher"), state)
    given = fitted.given
    assert isinstance(given, FitContext)
    assert given.shape == TaskShape(5, 1, 5)
    found = other_fit_of(fitted)("average")
    own = fit_cell(cell_of("average"), state)
    assert own.fit.reused
    assert all(torch.equal(found[name], value) for name, value in own.fit.tensors.items())
    assert not torch.equal(found["convs.0.weight"], fitted.fit.tensors["convs.0.weight"])
    assert len(list((state.cache / "fits").glob(f"*/{DONE}"))) == 2


def test_its_time_does_not_count(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit_cell(cell_of("best_teacher"), state)
    paused: list[str] = []
    run = fitted.given.other_fit.run  # type: ignore[attr-defined]
    clock, normal = run._clock, run._clock.paused

    def noted():
        paused.append("paused")
        return normal()

    monkeypatch.setattr(clock, "paused", noted)
    other_fit_of(fitted)("average")
    assert paused == ["paused"]


def test_a_method_that_the_configuration_does_not_name_is_refused(state: RunState) -> None:
    with pytest.raises(BenchError, match="best_teacher starts from the fit of 'average' without"):
        fit_cell(cell_of("best_teacher"), state).given.other_fit("average")


def test_the_code_of_the_other_method_is_part_of_the_fit_and_of_the_record() -> None:
    own = cell_of("purer")
    config = own.method_config | {"other_fit": "distill_ensemble"}
    started, base = own.model_copy(update={"method_config": config}), installed_code()
    other = "baselines/distillation/distill_ensemble.py"
    for code_of in (lambda cell: base.fit(cell, Purer), lambda cell: base.cell(cell, trains=True)):
        assert other in code_of(started).files
        assert other not in code_of(own).files
