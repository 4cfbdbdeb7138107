"""Checkpoints: when they are due, what is kept, what a damaged one does, and what they cost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from bench.checkpoints import INTERVAL, KEPT, MOST_OF_THE_TIME, Checkpoints, Keeping
from bench.results.maker import Judge, Maker
from bench.results.record import Code
from bench.stops import Stop, Stopped


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(folder: Path, every: float = 0.0, **keywords: object) -> Checkpoints:
    return Checkpoints(folder, "fit of x", Keeping(every), **keywords)


def judge(digest: str) -> Judge:
    """Return what takes only what the code of a digest made."""
    return Judge(Maker(Code(digest=digest), threads=1, device="cpu"))


def state(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((3,), float(number))}


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = made(tmp_path / "fit")
    assert checkpoints.load() is None
    for number in range(5):
        checkpoints.write(state(number), f"step {number}")
    assert len(list((tmp_path / "fit").iterdir())) == KEPT == 2
    found = made(tmp_path / "fit").load()
    assert found is not None
    assert found["number"] == 4
    assert torch.equal(found["weights"], torch.full((3,), 4.0))
    checkpoints.clear()
    assert not (tmp_path / "fit").exists()


def test_numbers_go_on_in_the_next_process(tmp_path: Path) -> None:
    made(tmp_path).write(state(1), "step 1")
    again = made(tmp_path)
    again.write(state(2), "step 2")
    again.write(state(3), "step 3")
    found = made(tmp_path).load()
    assert found is not None
    assert found["number"] == 3


@pytest.mark.parametrize("damage", ["bit", "half", "nothing left"])
def test_a_damaged_one_gives_way_to_the_one_before_with_one_line(
    tmp_path: Path, damage: str
) -> None:
    made(tmp_path).write(state(1), "step 1")
    made(tmp_path).write(state(2), "step 2")
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    whole = {"bit": len(content), "half": len(content) // 2, "nothing left": 0}[damage]
    newest.write_bytes(content[:whole])
    lines: list[str] = []
    found = Checkpoints(tmp_path, "fit of x", Keeping(0, say=lines.append)).load()
    assert found is not None
    assert found["number"] == 1
    assert len(lines) == 1
    assert "fit of x" in lines[0]
    assert "damaged" in lines[0]


def test_where_all_are_damaged_the_work_starts_again(tmp_path: Path) -> None:
    made(tmp_path).write(state(1), "step 1")
    next(tmp_path.iterdir()).write_bytes(b"half a file")
    assert made(tmp_path).load() is None


def test_a_state_of_other_code_is_not_gone_on_from(tmp_path: Path) -> None:
    made(tmp_path, judge=judge("a")).write(state(1), "step 1")
    assert made(tmp_path, judge=judge("b")).load() is None
    assert made(tmp_path, judge=judge("a")).load() is not None


def test_they_are_due_by_the_clock(tmp_path: Path) -> None:
    clock, written = Clock(), []
    checkpoints = made(tmp_path, INTERVAL, clock=clock)
    for _ in range(3 * int(INTERVAL)):
        clock.now += 1
        if checkpoints.due():
            written.append(clock.now)
            checkpoints.write(state(1), "step 1")
    assert written == [INTERVAL, 2 * INTERVAL, 3 * INTERVAL]


@pytest.mark.parametrize("step", [50.0, 70.0, 300.0])
def test_slow_steps_lose_no_more_than_the_interval_or_one_of_them(
    tmp_path: Path, step: float
) -> None:
    """One is written early where the next chance would come too late."""
    clock, last = Clock(), 0.0
    checkpoints = made(tmp_path, INTERVAL, clock=clock)
    for _ in range(10):
        clock.now += step
        assert clock.now - last <= max(INTERVAL, step)
        if checkpoints.due():
            checkpoints.write(state(1), "step 1")
            last = clock.now


def test_they_never_take_more_than_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 10 s; asked for every second, two minutes apart is not enough for 2 %."""
    clock, save, writing = Clock(), torch.save, 0.0

    def slow(*arguments: object) -> None:
        nonlocal writing
        clock.now += 10
        writing += 10
        save(*arguments)

    monkeypatch.setattr(torch, "save", slow)
    checkpoints = made(tmp_path, 120.0, clock=clock)
    for _ in range(20_000):
        clock.now += 1
        if checkpoints.due():
            checkpoints.write(state(1), "step 1")
    assert writing > 300
    assert writing / clock.now <= MOST_OF_THE_TIME


def test_a_request_to_end_makes_one_due_and_says_what_is_kept(tmp_path: Path) -> None:
    stop = Stop()
    checkpoints = Checkpoints(tmp_path, "fit of x", Keeping(INTERVAL, stop))
    assert not checkpoints.due()
    stop.request(signal.SIGTERM)
    assert checkpoints.due()
    with pytest.raises(Stopped) as caught:
        checkpoints.write(state(7), "step 7")
    assert (caught.value.exit_status, caught.value.kept) == (143, "fit of x, step 7")
    found = made(tmp_path).load()
    assert found is not None
    assert found["number"] == 7
