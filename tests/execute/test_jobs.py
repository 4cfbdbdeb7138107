"""Processes that share a suite: what one gives, they give; dead ones and signals lose nothing."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from bench.cli.main import main
from bench.errors import BenchError
from bench.execute import worker
from bench.execute.plan import Request
from bench.execute.progress import Standing
from bench.execute.sharing import Ended, Unit
from bench.execute.worker import Setup, _sendable, _Worker
from bench.results.store import StoredRecord
from tests.execute.test_run import ENVIRONMENT, arguments, bench, by_method, fitting
from tests.folders import copy_cache
from tests.helpers import cell_of
from tests.processes import Process

SETUP = Setup("micro", ("glyphs",), Request(Path(), Path(), None, {}, "cpu", 1, "bench"))
UNIT = Unit(0, cell_of("random"))


def start(words: list[str]) -> Process:
    return Process(words, env=ENVIRONMENT)


def assert_same(ours: dict[str, StoredRecord], theirs: dict[str, StoredRecord]) -> None:
    assert set(ours) == set(theirs)
    for name, one in ours.items():
        other = theirs[name]
        assert one.record.status == other.record.status == "done", one.record.reason
        assert one.record.cell_hash == other.record.cell_hash
        assert one.record.accuracy == other.record.accuracy
        assert one.record.task_list_sha256 == other.record.task_list_sha256
        assert one.record.pool == other.record.pool
        assert one.record.cost == other.record.cost
        np.testing.assert_array_equal(one.accuracies(), other.accuracies())


def test_processes_and_runs_share_a_suite_and_give_what_one_process_gives(
    cache: Path, glyphs_cache: Path, tmp_path: Path
) -> None:
    """Two runs of three processes in all, on one folder: nothing is made twice."""
    methods = ("random", "average", "ensemble_centroids")
    only = ["--no-mlflow", *(f"--only=method={name}" for name in methods)]
    runs, alone = tmp_path / "runs", tmp_path / "alone"
    both = [start(arguments(cache, runs, f"--jobs={jobs}", *only)) for jobs in (2, 1)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert all("average" in output for output, _ in ends)
    assert "2 processes (--jobs)" in ends[0][0]
    shared = by_method(runs)
    logs = [(one.folder / "log.txt").read_text() for one in shared.values()]
    assert [log.count(" done") for log in logs] == [1, 1, 1]
    processes = {one.record.process.pid for one in shared.values()}
    assert both[0].pid not in processes, "the main process of several computes nothing"
    assert not [path for folder in (runs, cache) for path in folder.rglob("*.lease*")]

    fresh = tmp_path / "fresh"
    copy_cache(glyphs_cache, fresh)
    assert bench(*arguments(fresh, alone, "--jobs=1", *only)).returncode == 0
    assert_same(shared, by_method(alone))


def wait_until(condition: Callable[[], Any], process: Process) -> Any:
    deadline = time.monotonic() + 300
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_killed_process_is_replaced_by_the_others_and_a_signal_ends_all(
    trained_cache: Path, tmp_path: Path
) -> None:
    """The one that fits is killed; another takes the fit up; the run is asked to end."""
    cache, runs = trained_cache, tmp_path / "runs"
    words = ["--no-mlflow", "--only=method=purer", "--only=method=random", "--jobs=2"]
    long = ["--set=budget.meta_iterations=100000", "--checkpoint-every=0.01"]
    process = start([*arguments(cache, runs, *words), *long])

    def fits(but: int = 0) -> int | None:
        return next((pid for pid in fitting(runs) if pid != but), None)

    try:
        first = wait_until(fits, process)
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: fits(but=first), process)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.pid not in (first, second)
    assert process.returncode == 143
    lines = [
        line for line in output.splitlines() if f"process {first} was ended by SIGKILL" in line
    ]
    assert len(lines) == 1
    assert lines[0].startswith("purer")
    assert "as for want of memory" in lines[0]
    assert "interrupted: kept fit of purer" in errors
    assert "1 of 2 cells are finished in" in errors
    assert "Traceback" not in errors
    assert list(cache.glob("fits/*/checkpoint-*.pt"))
    assert not [one for one in workers if one.is_running() and one.status() != "zombie"]


class Heard:
    """A worker of which the test is the other end: what it is told, what it says."""

    def __init__(self, run_unit: Callable[[Unit, Any], Ended], monkeypatch: pytest.MonkeyPatch):
        read_end, write_end = os.pipe()
        self._from, self._to = os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb")
        self.said: list[object] = []
        monkeypatch.setattr(worker, "open_state", self._state)
        monkeypatch.setattr(worker, "run_unit", run_unit)
        self.worker = _Worker(self._from, self.said.append)
        self.tell(SETUP)

    def _state(self, suite: str, datasets: object, request: object, progress: Any, keeping: Any):
        return SimpleNamespace(progress=progress, keeping=keeping)

    def tell(self, command: object) -> None:
        pickle.dump(command, self._to)
        self._to.flush()

    def hang_up(self) -> None:
        self._to.close()

    def run(self) -> None:
        """Let the worker work, and close both ends."""
        self.worker.run()
        self._to.close()
        self._from.close()


def test_a_worker_does_what_it_is_given_until_nothing_more_can_come(monkeypatch) -> None:
    def run(unit: Unit, state: Any) -> Ended:
        for done in range(1, 100):
            state.progress("fit", done, 100)
        state.keeping.say("a line")
        return Ended(unit, Path("done"))

    def hear(event: object) -> None:
        heard.said.append(event)
        if isinstance(event, Ended):
            heard.hang_up()

    heard = Heard(run, monkeypatch)
    heard.worker._send = hear
    heard.tell(UNIT)
    heard.run()
    *standings, line, ended = heard.said
    assert (line, ended) == ("a line", Ended(UNIT, Path("done")))
    assert standings[0] == Standing("fit", 1, 100)
    assert len(standings) < 20, "most steps are not worth a message"


def until_asked_to_end(unit: Unit, state: Any) -> Ended:
    deadline = time.monotonic() + 30
    while not state.keeping.stop.requested and time.monotonic() < deadline:
        time.sleep(0.001)
    return Ended(unit, signum=state.keeping.stop.signum)


def test_a_worker_whose_run_was_gone_before_it_began_ends_as_well(monkeypatch) -> None:
    heard = Heard(until_asked_to_end, monkeypatch)
    heard.tell(UNIT)
    heard.hang_up()
    heard.run()
    assert heard.said in ([], [Ended(UNIT, signum=signal.SIGTERM)])


def test_a_worker_whose_run_is_gone_saves_what_it_is_at(monkeypatch) -> None:
    def run(unit: Unit, state: Any) -> Ended:
        heard.hang_up()
        deadline = time.monotonic() + 30
        while not state.keeping.stop.requested and time.monotonic() < deadline:
            time.sleep(0.001)
        return Ended(unit, signum=state.keeping.stop.signum, kept="fit, step 3")

    heard = Heard(run, monkeypatch)
    heard.tell(UNIT)
    heard.run()
    assert heard.said == [Ended(UNIT, signum=signal.SIGTERM, kept="fit, step 3")]


def test_a_request_reaches_the_work_and_nothing_is_begun_after_it(monkeypatch) -> None:
    begun = []

    def run(unit: Unit, state: Any) -> Ended:
        begun.append(unit)
        heard.tell(int(signal.SIGUSR1))
        while not state.keeping.stop.requested:
            time.sleep(0.001)
        return Ended(unit, signum=state.keeping.stop.signum)

    heard = Heard(run, monkeypatch)
    heard.tell(UNIT)
    heard.tell(Unit(1, UNIT.cell))
    heard.run()
    assert begun == [UNIT]
    assert heard.said == [Ended(UNIT, signum=signal.SIGUSR1)]


def test_an_error_travels_or_is_told_in_words() -> None:
    class Local(Exception):
        pass

    full = _sendable(OSError(28, "No space left on device"))
    assert isinstance(full, OSError)
    assert (type(_sendable(Local("it"))), str(_sendable(Local("it")))) == (BenchError, "Local: it")


def test_who_finds_all_stored_writes_nothing_into_the_cache(cache: Path, tmp_path: Path) -> None:
    """So a cache that one may only read serves: no file, no lease, no folder comes or goes."""
    only = ["--no-mlflow", "--only=method=average", "--only=method=ensemble_centroids"]

    def run(name: str, *more: str) -> dict[str, StoredRecord]:
        with pytest.raises(SystemExit) as end:
            main([*arguments(cache, tmp_path / name, *only), *more])
        assert end.value.code == 0
        return by_method(tmp_path / name)

    def tree() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}

    first = run("first")
    before = tree()
    again = run("again")
    assert tree() == before
    assert_same(again, first)
    assert all(one.record.fit.reused for one in again.values())
