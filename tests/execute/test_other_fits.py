"""A fit that starts from the fit of another method: stored, shared, and not counted twice."""

from __future__ import annotations

import pytest
import torch

from bench.contract import FitContext, TaskShape
from bench.execute.fitting import fit_cell
from bench.execute.state import RunState
from bench.results.store import DONE
from tests.helpers import cell_of, toy_data


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> RunState:
    folder = tmp_path_factory.mktemp("other fits")
    device, data = torch.device("cpu"), {"glyphs": toy_data()}
    return RunState("toy", folder / "runs", folder / "cache", device, data, "bench run")


def test_the_other_fit_is_that_of_the_method_s_own_cell(state: RunState) -> None:
    fitted = fit_cell(cell_of("best_teacher"), state)
    given = fitted.given
    assert isinstance(given, FitContext)
    assert given.shape == TaskShape(5, 1, 5)
    found = given.other_fit("average")
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
    fitted.given.other_fit("average")
    assert paused == ["paused"]
