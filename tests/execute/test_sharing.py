"""The loop that gives cells to who computes, with a crew that does what a test says."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.checkpoints import Keeping
from bench.errors import BrokenOff
from bench.execute.progress import Standing
from bench.execute.sharing import TRIES, Ended, Unit, share
from bench.leases import Busy
from bench.stops import Stopped
from bench.suites.cell import Cell
from tests.helpers import cell_of
from tests.test_leases import facts_of

RANDOM, AVERAGE, PURER = (cell_of(name) for name in ("random", "average", "purer"))
DONE = Path("done")


class Shown:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.about: list[tuple[str, str]] = []
        self.under_way: list[str] = []

    def start_cell(self, label: str) -> None:
        self.under_way.append(label)

    def stage(self, label: str, standing: Standing) -> None:
        pass

    def leave_cell(self, label: str) -> None:
        self.under_way.remove(label)

    def end_cell(self, label: str, outcome: str) -> None:
        self.under_way.remove(label)

    def say(self, line: str, label: str = "") -> None:
        self.lines.append(line)
        self.about.append((line, label))


class Crew:
    """A crew of some size; what it was given ends, the oldest first, as `answer` says."""

    def __init__(self, answer: Callable[[Unit], Ended], size: int = 1) -> None:
        self._answer, self.size = answer, size
        self._at: list[Unit] = []
        self.begun: list[str] = []
        self.stopped: list[int] = []
        self.most = 0

    @property
    def is_free(self) -> bool:
        return len(self._at) < self.size

    def start(self, unit: Unit) -> None:
        self._at.append(unit)
        self.begun.append(f"teachers for {unit.cell.method}" if unit.helps else unit.cell.method)
        self.most = max(self.most, len(self._at))

    def ended(self, seconds: float) -> Sequence[Ended]:
        return [self._answer(self._at.pop(0))] if self._at else []

    def stop(self, signum: int) -> None:
        self.stopped.append(signum)


def well(unit: Unit) -> Ended:
    return Ended(unit) if unit.helps else Ended(unit, DONE)


def names(found: Sequence[tuple[Cell, Path]]) -> list[str]:
    return [cell.method for cell, _ in found]


def test_one_process_runs_the_cells_in_order_and_trains_nothing_apart() -> None:
    crew, shown = Crew(well), Shown()
    found = list(share([RANDOM, AVERAGE, PURER], crew, shown, Keeping()))
    assert names(found) == crew.begun == ["random", "average", "purer"]
    assert {folder for _, folder in found} == {DONE}
    assert not shown.lines


def test_several_processes_are_kept_at_work_and_help_with_the_teachers_of_the_last_cells() -> None:
    crew, shown = Crew(well, size=3), Shown()
    found = list(share([RANDOM, AVERAGE], crew, shown, Keeping()))
    assert crew.most == 3
    assert crew.begun[:3] == ["random", "average", "teachers for average"]
    assert sorted(names(found)) == ["average", "random"]
    assert len(crew.begun) <= 2 + crew.size, "a pool is helped with once per process"


def test_nobody_helps_a_cell_without_teachers() -> None:
    crew = Crew(well, size=3)
    list(share([RANDOM], crew, Shown(), Keeping()))
    assert crew.begun == ["random"]


def test_what_another_process_is_at_is_passed_over_and_tried_again(tmp_path: Path) -> None:
    """Its cell, while random runs; then its fit, for which nothing is left but to wait."""
    lease, turns = tmp_path / "l", []
    lease.write_text(facts_of(what="fit of purer"))

    def answer(unit: Unit) -> Ended:
        if unit.cell is PURER and not unit.helps and lease.exists():
            return Ended(unit, busy=Busy(lease, "it", {**_facts(), "what": "fit of purer"}))
        return well(unit)

    class Patient(Crew):
        def ended(self, seconds: float) -> Sequence[Ended]:
            if not self._at:
                turns.append(seconds)
                if len(turns) == 3:
                    lease.unlink()
            return super().ended(seconds)

    crew, shown = Patient(answer), Shown()
    found = list(share([PURER, RANDOM], crew, shown, Keeping()))
    assert names(found) == ["random", "purer"]
    assert crew.begun == ["purer", "random", "teachers for purer", "purer"]
    assert len(shown.lines) == 1, "it is said once"
    assert shown.lines[0].startswith("waiting: process ")
    assert "works on fit of purer since" in shown.lines[0]


def _facts() -> dict[str, object]:
    import json

    return json.loads(facts_of())


def test_a_cell_whose_process_dies_is_tried_again_and_then_fails() -> None:
    deaths = []

    def answer(unit: Unit) -> Ended:
        if unit.cell is PURER and not unit.helps and not unit.failed:
            deaths.append(unit)
            return Ended(unit, lost="process 7 was ended by SIGKILL")
        return Ended(unit, Path(unit.failed or "done"))

    crew, shown = Crew(answer), Shown()
    shared = share([PURER, RANDOM], crew, shown, Keeping())
    found = {cell.method: folder for cell, folder in shared}
    assert found == {"random": DONE, "purer": Path("process 7 was ended by SIGKILL")}
    assert len(deaths) == TRIES
    assert (
        shown.lines == [f"{PURER.label}: process 7 was ended by SIGKILL; the others go on"] * TRIES
    )


def test_processes_that_die_whatever_they_are_given_end_the_run() -> None:
    crew = Crew(lambda unit: Ended(unit, lost="process 7 ended with status 1"))
    with pytest.raises(BrokenOff, match=r"no process can record that random .* failed: process 7"):
        list(share([RANDOM], crew, Shown(), Keeping()))


def test_what_is_no_matter_of_a_cell_ends_the_run() -> None:
    crew = Crew(lambda unit: Ended(unit, error=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        list(share([RANDOM, AVERAGE], crew, Shown(), Keeping()))
    assert crew.begun == ["random"]


def test_a_request_to_end_reaches_the_crew_and_what_it_kept_is_said() -> None:
    keeping = Keeping()

    def answer(unit: Unit) -> Ended:
        if unit.cell is RANDOM:
            keeping.stop.request(signal.SIGTERM)
            return Ended(unit, DONE)
        return Ended(unit, signum=signal.SIGTERM, kept=f"fit of {unit.cell.method}, step 3")

    crew, shown = Crew(answer, size=3), Shown()
    shared = share([RANDOM, AVERAGE, PURER, RANDOM], crew, shown, keeping)
    assert next(shared)[0] is RANDOM
    with pytest.raises(Stopped) as stopped:
        next(shared)
    assert crew.begun == ["random", "average", "purer"], "nothing new was begun"
    assert set(crew.stopped) == {signal.SIGTERM}
    assert stopped.value.kept == "fit of average, step 3; fit of purer, step 3"
    assert shown.under_way == [RANDOM.label], "its end is shown by who runs the plan"
