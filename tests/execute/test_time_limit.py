"""A time limit per cell: what takes longer ends at its next step, is kept, and is gone on from."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli.main import main
from bench.execute.cell import run_cell
from bench.execute.state import RunState
from bench.results.find import find_records
from bench.results.store import StoredRecord, cell_state, read_record
from bench.stops import Deadline, OverTime, Stop, Stopped
from tests.helpers import cell_of, run_toy, toy_data

DATA = toy_data()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass at each look at the clock, so that no test depends on the machine."""
    clock = functools.partial(next, itertools.count())
    monkeypatch.setattr("bench.execute.state.Deadline", functools.partial(Deadline, clock=clock))


def run_limited(folder: Path, method: str, seconds: float | None) -> StoredRecord:
    folders = folder / "runs", folder / "cache"
    state = RunState(
        "toy", *folders, torch.device("cpu"), {"glyphs": DATA}, "bench run", time_limit=seconds
    )
    return read_record(run_cell(cell_of(method), state))


def test_a_deadline_passes_and_the_end_of_all_comes_first():
    now, whole = [0.0], Stop()
    deadline = Deadline(whole, 60, lambda: now[0])
    deadline.check()
    now[0] = 59.9
    assert not deadline.requested
    now[0] = 60.0
    with pytest.raises(OverTime) as over:
        deadline.check("fit of it, step 3")
    assert not isinstance(over.value, Exception)
    assert str(over.value) == (
        "not finished within the time limit of 60 s (kept fit of it, step 3); run it again with a "
        "larger --time-limit to go on from there"
    )
    whole.request()
    with pytest.raises(Stopped):
        deadline.check()


@pytest.mark.parametrize(("method", "stage"), [("purer", "fit"), ("average", "test")])
def test_a_cell_ends_and_goes_on_step_by_step(
    tmp_path: Path, looks: None, monkeypatch: pytest.MonkeyPatch, method: str, stage: str
) -> None:
    """Among teachers, in the fit and among the test tasks; the record is that of a single run."""
    monkeypatch.setattr("bench.execute.evaluate.TASKS_PER_CHUNK", 3)
    whole = run_toy(cell_of(method), DATA, tmp_path / "whole")
    reasons = []
    for seconds in itertools.count(3, 14 if method == "purer" else 2):
        again = run_limited(tmp_path / "limited", method, seconds)
        if again.record.status == "done":
            break
        assert again.record.status == "failed"
        assert again.record.accuracy is None
        assert cell_state(again.folder).name == "failed"
        reasons.append(str(again.record.reason))
        assert reasons[-1].startswith(f"not finished within the time limit of {seconds} s (kept ")
        assert len(reasons) < 50
    kinds = {text.partition("(kept ")[2].split()[0] for text in reasons}
    assert {"teacher", stage} <= kinds
    np.testing.assert_array_equal(again.accuracies(), whole.accuracies())
    assert again.record.cell_hash == whole.record.cell_hash
    assert not list(again.folder.glob("checkpoint-*"))


def test_the_others_go_on_and_the_command_says_which_is_left(
    cache: Path, tmp_path: Path, looks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ("teacher_epochs=1", "max_teachers=2", "meta_iterations=6", "n_val_tasks=2")
    words = [f"--set=budget.{one}" for one in counts]
    words += [
        "--set=n_test_tasks=12",
        "--set=n_query=3",
        "--only=method=purer",
        "--only=method=random",
    ]
    words = ["run", "micro", "--no-mlflow", "--no-figures", f"--cache={cache}", *words, "--json"]
    words += [f"--runs={tmp_path}"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--time-limit=15"])
    assert end.value.code == 1
    said = capsys.readouterr()
    states = {row["method"]: (row["status"], row["reason"]) for row in json.loads(said.out)}
    assert states["random"] == ("done", None)
    status, reason = states["purer"]
    assert status == "failed"
    (line,) = [one for one in said.err.splitlines() if one.startswith("failed: ")]
    assert line.startswith(f"failed: purer: {reason}")
    with pytest.raises(SystemExit) as end:
        main([*words, "--time-limit=1e9"])
    assert end.value.code == 0
    assert {one.record.status for one in find_records(tmp_path)} == {"done"}
    for refused in ("0", "-1"):
        with pytest.raises(SystemExit) as end:
            main([*words, f"--time-limit={refused}"])
        assert end.value.code == 2
