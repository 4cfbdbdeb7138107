"""A damaged cell is run again and said; what only a newer version can read is left as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.results.find import find_records
from bench.results.record import SCHEMA
from bench.results.store import DONE, RECORD, TASKS, cell_state, mark_done


def run(capsys: pytest.CaptureFixture[str], cache: Path, runs: Path, verb: str = "run") -> str:
    """Run the cell of `random`, or plan it, and return what was printed."""
    words = [verb, "micro", "--only=method=random", "--set=n_test_tasks=3", "--device=cpu"]
    words += [f"--cache={cache}", f"--runs={runs}"]
    words += ["--no-mlflow", "--no-figures"] if verb == "run" else []
    with pytest.raises(SystemExit) as end:
        main(words)
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err
    return captured.out


@pytest.fixture
def finished(capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path) -> Path:
    """The folder of a finished cell, the only one of its suite."""
    run(capsys, cache, tmp_path / "runs")
    (stored,) = find_records(tmp_path / "runs")
    return stored.folder


@pytest.mark.parametrize("name", [TASKS, RECORD, DONE])
def test_a_damaged_cell_is_run_again(
    capsys: pytest.CaptureFixture[str], cache: Path, finished: Path, name: str
) -> None:
    runs = finished.parents[1]
    before = (finished / TASKS).read_bytes()
    (finished / name).write_bytes((finished / name).read_bytes()[:-9])
    assert cell_state(finished).name == "damaged"
    assert "damaged" in run(capsys, cache, runs, "plan")
    out = run(capsys, cache, runs)
    (line,) = [line for line in out.splitlines() if "running the cell again" in line]
    assert line.startswith(f"{finished}: {name} ")
    assert cell_state(finished).name == "done"
    assert (finished / TASKS).read_bytes() == before
    assert "running the cell again" not in run(capsys, cache, runs)


def test_a_newer_record_is_not_replaced(
    capsys: pytest.CaptureFixture[str], cache: Path, finished: Path
) -> None:
    values = json.loads((finished / RECORD).read_text())
    (finished / RECORD).write_text(json.dumps(values | {"schema_version": SCHEMA + 1}))
    mark_done(finished)
    before = (finished / RECORD).read_bytes()
    assert "newer" in run(capsys, cache, finished.parents[1], "plan")
    out = run(capsys, cache, finished.parents[1])
    assert f"{finished / RECORD} cannot be read: it is of schema {SCHEMA + 1}" in out
    assert (finished / RECORD).read_bytes() == before


def test_a_failed_cell_is_told_from_one_that_speaks_of_failure(
    capsys: pytest.CaptureFixture[str], cache: Path, finished: Path
) -> None:
    """The status is read, not looked for in the text."""
    values = json.loads((finished / RECORD).read_text())
    spoken = values | {"extra": {"text": '"status": "failed"', "status": "failed"}}
    (finished / RECORD).write_text(json.dumps(spoken))
    mark_done(finished)
    assert cell_state(finished).name == "done"
    ended = values["ended"]
    run(capsys, cache, finished.parents[1])
    assert json.loads((finished / RECORD).read_text())["ended"] == ended
    (finished / RECORD).write_text(json.dumps(values | {"status": "failed"}, separators=(",", ":")))
    mark_done(finished)
    assert cell_state(finished).name == "failed"
    run(capsys, cache, finished.parents[1])
    assert cell_state(finished).name == "done"
