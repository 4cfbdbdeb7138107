"""What is made again is said: on standard error, in the rows of --json, by workers of Dask."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.display import QuietDisplay
from bench.cli.main import main
from bench.execute import dask
from bench.execute.jobs import Processes
from bench.execute.plan import Request, make_plan
from bench.execute.sharing import Ended, Unit
from bench.execute.worker import Setup
from bench.results.files import write_json
from bench.results.store import mark_done
from tests.execute.test_sharing import Shown
from tests.helpers import cell_of

SETTINGS = ["n_test_tasks=8", "budget.teacher_epochs=1", "budget.max_teachers=1"]
UNIT = Unit(0, cell_of("average"))


def run(cache: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """Run one averaged pool with --json; return its row and the lines on standard error."""
    words = ["run", "micro", f"--runs={runs}", f"--cache={cache}", "--only=method=average"]
    words += [
        *(f"--set={one}" for one in SETTINGS),
        "--jobs=1",
        "--no-mlflow",
        "--no-figures",
        "--json",
    ]
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr()
    assert not end.value.code, said.err
    (row,) = json.loads(said.out)
    return row, said.err


def restamp(path: Path) -> None:
    """Let a stored fit or teacher say that other code made it."""
    other = {"code": {"digest": "0" * 64, "files": {"bench/seeds.py": "0" * 12}}}
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | other)


def make_stale(cache: Path) -> None:
    """Let the fit and the first teacher say that other code made them."""
    (fit,) = cache.glob("fits/*/fit.json")
    restamp(fit)
    mark_done(fit.parent)
    for card in cache.glob("teachers/*/teacher.json"):
        restamp(card)


def test_with_json_and_from_a_dask_worker(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, said = run(cache, tmp_path / "a", capsys)
    assert (row["notices"], said) == ([], "")

    make_stale(cache)
    row, said = run(cache, tmp_path / "b", capsys)
    *teachers, fit = row["notices"]
    assert said.splitlines() == row["notices"]
    assert [line[:14] for line in teachers] == ["teacher 1 of 1"]
    assert all(line.endswith("; training it again") for line in teachers)
    assert fit.startswith("fit of average · ")
    assert fit.endswith(": bench/seeds.py changed since this fit; fitting again")

    make_stale(cache)
    plan = make_plan("micro", SETTINGS, ["method=average"], None, cache, None, {})
    request = Request(tmp_path / "c", cache, None, {}, "cpu", 1, "bench run micro")
    unit = Unit(0, plan.cells[0])
    ended = dask._work(Setup("micro", ("glyphs",), request), unit, "a run")
    assert ended.folder is not None
    assert list(ended.said) == row["notices"]
    again = dask._work(Setup("micro", ("glyphs",), request), unit, "a run")
    assert again.said == ()
    shutil.rmtree(tmp_path / "c")


def test_what_workers_say_is_told_with_the_cell_that_it_concerns() -> None:
    told = Shown()
    process = SimpleNamespace(unit=replace(UNIT, helps=True))
    crew: Any = SimpleNamespace(_display=told)
    assert list(Processes._take(crew, process, "x changed; training it again")) == []
    future = Future()
    crew._at, crew._room = {future: ("worker", UNIT)}, SimpleNamespace(of_memory="")
    crew._there, crew._answer = lambda: {"worker"}, partial(dask.Workers._answer, crew)
    assert dask.Workers._end(crew, future).folder == Path("done")
    label = UNIT.cell.label
    assert told.about == [("x changed; training it again", label), ("y changed", label)]


class Future:
    """A unit that a Dask worker has done."""

    status = "finished"

    def result(self, timeout: float) -> Ended:
        """Return how it ended, well within the timeout in seconds."""
        return Ended(UNIT, Path("done"), said=("y changed",))


def test_the_quiet_display_tells_and_keeps_what_is_said_and_nothing_else() -> None:
    lines: list[str] = []
    display = QuietDisplay(2, lines.append)
    with display:
        display.start_cell("a")
        display.say("changed", "a")
        display.say("waiting")
        display.end_cell("a", "50 %")
    assert lines == ["changed", "waiting"]
    assert display.notices == {"a": ["changed"], "": ["waiting"]}
