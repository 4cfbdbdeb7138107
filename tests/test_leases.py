"""Leases: one holder at a time, on one machine and on many, and none that is dead for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import leases
from bench.leases import Busy, Lease, hold, patiently, waiting
from bench.processes import holder, this_process


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(leases, "clock", found)
    return found


def facts_of(**changed: object) -> str:
    facts = {**this_process(), "what": "fit of it", "since": 0.0, "token": "theirs", **changed}
    return json.dumps(facts)


def gone() -> dict[str, object]:
    """Return the facts of a process that is no more."""
    code = (
        "import json; from bench.processes import this_process; print(json.dumps(this_process()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_one_holds_and_the_other_is_told_who_works_on_what(tmp_path: Path) -> None:
    path = tmp_path / ".lease"
    with hold(path, "teacher 3 of 13") as lease:
        lease.check()
        with pytest.raises(Busy) as busy, hold(path, "teacher 3 of 13"):
            raise AssertionError("two hold it")
        own = this_process()
        line = f"process {own['pid']} on {own['host']} works on teacher 3 of 13 since "
        assert str(busy.value).startswith(line)
        assert busy.value.is_held
    assert not busy.value.is_held
    assert not list(tmp_path.iterdir())


def test_it_is_given_back_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "l", "it"):
        raise ZeroDivisionError
    with hold(tmp_path / "l", "it"):
        pass


def test_a_dead_holder_of_this_machine_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "l").write_text(facts_of(**gone()))
    with hold(tmp_path / "l", "it") as lease:
        lease.check()


def test_a_number_that_another_process_has_now_is_not_its_holder() -> None:
    assert holder(this_process()) == "there"
    assert holder({**this_process(), "process_started": 1.0}) == "gone"
    assert holder({**this_process(), "machine": "another boot"}) == "elsewhere"


@pytest.mark.parametrize(
    "text", [facts_of(host="node7"), facts_of(machine="another container"), "", '{"host": ']
)
def test_a_holder_that_cannot_be_asked_for_counts_until_its_time_is_over(
    tmp_path: Path, clock: Clock, text: str
) -> None:
    """The time begins when the lease is first seen, and again with each touch."""
    path = tmp_path / "l"
    path.write_text(text)
    for now in (0.0, leases.STALE_AFTER):
        clock.now = now
        with pytest.raises(Busy), hold(path, "it"):
            raise AssertionError("it counts still")
    os.utime(path, (1, 1))
    for now in (leases.STALE_AFTER + 1, 2 * leases.STALE_AFTER + 1):
        clock.now = now
        with pytest.raises(Busy), hold(path, "it"):
            raise AssertionError("it was touched")
    clock.now = 2 * leases.STALE_AFTER + 2
    with hold(path, "it") as lease:
        lease.check()


def test_another_machine_s_clock_does_not_matter(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "l").write_text(facts_of(host="node7"))
    os.utime(tmp_path / "l", (1, 1))  # by its clock of 1970
    with pytest.raises(Busy), hold(tmp_path / "l", "it"):
        raise AssertionError("it counts still")


def test_the_holder_touches_its_lease_and_stops_once_it_is_another_s(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with hold(path, "it") as lease:
        os.utime(path, (1, 1))
        turns = iter([False, True])
        lease._ended.set()
        lease._ended = SimpleNamespace(wait=lambda seconds: next(turns), set=lambda: None)
        lease._renew()
        assert path.stat().st_mtime > 1
        path.write_text(facts_of(host="node7"))
        os.utime(path, (1, 1))
        turns = iter([False])
        lease._renew()
        assert path.stat().st_mtime == 1
        with pytest.raises(Busy, match="on node7 works on fit of it"):
            lease.check()
    assert path.read_text() == facts_of(host="node7"), "another's lease is not given back"


def test_one_of_many_takes_a_dead_holder_s_lease(tmp_path: Path) -> None:
    path, dead = tmp_path / "l", facts_of(**gone())
    for _ in range(20):
        path.write_text(dead)
        start, taken = threading.Barrier(8), []

        def work(start: threading.Barrier = start, taken: list[Lease] = taken) -> None:
            lease = Lease(path, "it")
            start.wait()
            try:
                lease.take()
            except Busy:
                return
            taken.append(lease)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) <= 1
        if not taken:  # all met one that was about to clear it
            taken.append(Lease(path, "it"))
            taken[0].take()
        taken[0].check()
        taken[0].release()
        assert not list(tmp_path.iterdir())


def test_one_killed_while_it_cleared_a_lease_stops_nobody(tmp_path: Path) -> None:
    dead = gone()
    (tmp_path / "l").write_text(facts_of(**dead))
    (tmp_path / "l.clearing").write_text(facts_of(**dead))
    with pytest.raises(Busy) as busy, hold(tmp_path / "l", "it"):
        raise AssertionError("the first clears the other's file")
    assert not busy.value.is_held
    with hold(tmp_path / "l", "it"):
        pass
    assert not list(tmp_path.iterdir())


def test_who_waits_says_for_whom_and_goes_on_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said, looks = tmp_path / "l", [], []
    path.write_text(facts_of())

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            path.unlink()

    monkeypatch.setattr(leases.time, "sleep", sleep)

    def work() -> str:
        with hold(path, "it"):
            return "done"

    assert patiently(work, say=said.append) == "done"
    assert looks == [leases.LOOK_EVERY] * 3
    assert len(said) == 1
    assert said[0].startswith("waiting: process ")
    with waiting(path, "it"):
        assert path.exists()


def test_a_wait_can_be_ended(tmp_path: Path) -> None:
    (tmp_path / "l").write_text(facts_of())

    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), waiting(tmp_path / "l", "it", check):
        raise AssertionError("it is another's")


def test_a_full_disk_leaves_no_empty_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, *_: object, **__: object) -> None:
        os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases.os, "fdopen", full)
    with pytest.raises(OSError, match="No space"), hold(tmp_path / "l", "it"):
        raise AssertionError("it could not be written")
    assert not list(tmp_path.iterdir())
