"""Dask workers that die, are lacking, or whose scheduler is gone, with a client of the test's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

from distributed.client import FuturesCancelledError

from bench.checkpoints import Keeping
from bench.errors import BenchError, BrokenOff
from bench.execute import dask
from bench.execute.capacity import GIB, Capacity
from bench.execute.dask import Workers
from bench.execute.plan import Request
from bench.execute.progress import PROGRESS, Progress, Standing
from bench.execute.sharing import Ended, Order, Unit
from bench.execute.worker import Setup
from tests.execute.test_sharing import Shown
from tests.helpers import cell_of

ROOM = Capacity(("cpu", "cpu"), "2 cores", int(1.5 * GIB), 2 * GIB)
UNITS = [Unit(number, cell_of(name)) for number, name in enumerate(("random", "average", "purer"))]


class Future:
    """What became of a unit, once a test says so."""

    def __init__(self) -> None:
        self.status, self.answer = "pending", None
        self.lost: Callable[[], object] | None = None
        """what happens to the worker while it is asked"""

    def result(self, timeout: float) -> Any:
        if self.lost is not None:
            self.lost()
            raise TimeoutError
        return self.answer

    def exception(self, timeout: float) -> Any:
        return self.answer

    def cancel(self) -> None:
        self.status = "cancelled"


class Client:
    """A client of a cluster whose workers a test names."""

    def __init__(self, *workers: str) -> None:
        self.workers, self.status, self.blind = list(workers), "running", set()
        self.silent = False
        self.given: list[tuple[str, str | None, Unit]] = []
        self.futures: list[Future] = []

    def nthreads(self) -> dict[str, int]:
        if self.silent:
            raise OSError("the scheduler does not answer")
        return dict.fromkeys(self.workers, 1)

    def run(self, function: Callable[..., Any], *args: Any, workers: Any = None, on_error: str):
        return {one: one not in self.blind for one in workers or self.workers}

    def submit(self, work: Any, setup: Setup, unit: Unit, run_id: str, workers: Any, **_: Any):
        self.given.append((workers[0], setup.request.device, unit))
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(dask.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dask.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return now


def crew_of(client: Client, folder: Path, shown: Shown, *devices: str) -> Workers:
    request = Request(folder, folder, None, {}, "cpu", 1, "bench", worker_timeout=100)
    plan = SimpleNamespace(suite=SimpleNamespace(name="toy"), digests={"glyphs": "d"})
    crew = Workers(client, Order(plan, [], request, shown, Keeping()), devices, ROOM)
    crew._wait = lambda seconds: {one for one in client.futures if one.status != "pending"}
    return crew


def test_each_worker_gets_one_unit_and_a_device_of_its_own(tmp_path: Path) -> None:
    client = Client("a", "b")
    crew = crew_of(client, tmp_path, Shown(), "cuda:1", "cuda:3")
    for unit in UNITS[:2]:
        assert crew.is_free
        crew.start(unit)
    assert not crew.is_free
    assert client.given == [("a", "cuda:1", UNITS[0]), ("b", "cuda:3", UNITS[1])]
    client.futures[0].status, client.futures[0].answer = "finished", Ended(UNITS[0], Path("x"))
    assert crew.ended(1) == [Ended(UNITS[0], Path("x"))]
    client.futures.pop(0)
    client.workers = ["b", "c"]  # a died when it had nothing to do, and came again
    crew.start(UNITS[2])
    assert client.given[-1] == ("c", "cuda:1", UNITS[2])


def test_a_worker_that_dies_leaves_its_unit_with_the_plan_s_number_and_the_limit(
    tmp_path: Path,
) -> None:
    client = Client("a", "b")
    crew = crew_of(client, tmp_path, Shown())
    crew.start(UNITS[0])
    client.workers.remove("a")
    (ended,) = crew.ended(1)
    assert ended == Ended(
        UNITS[0],
        lost="worker a did not end it (it died; cells like it took 1.5 GB, the limit for all is "
        "2.0 GB)",
    )
    assert client.futures[0].status == "cancelled"


def test_a_worker_that_dies_before_its_answer_is_fetched_takes_it_along(tmp_path: Path) -> None:
    """Dask would wait for ever: the unit may run on no other worker."""
    client = Client("a", "b")
    crew = crew_of(client, tmp_path, Shown())
    for unit in UNITS[:2]:
        crew.start(unit)
    for future in client.futures:
        future.status, future.answer = "finished", Ended(UNITS[0], Path("x"))
    client.futures[0].lost = lambda: client.workers.remove("a")
    found = {ended.unit.number: ended for ended in crew.ended(1)}
    assert found[0].lost.startswith("worker a did not end it (it died; ")
    assert found[1] == Ended(UNITS[1], Path("x"))
    assert client.futures[0].status == "cancelled"


def test_what_a_worker_raises_ends_the_run_or_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or an input that fails travels without a traceback; what nobody expects is a loss."""

    def fail(*_: Any) -> None:
        raise OSError(20, "Not a directory", "runs")

    client = Client("a")
    crew = crew_of(client, tmp_path, Shown())
    monkeypatch.setattr(dask, "open_state", fail)
    error = dask._work(crew._setup, UNITS[0], "run").error
    assert isinstance(error, NotADirectoryError)
    assert error.filename == "runs"
    crew.start(UNITS[1])
    client.futures[-1].status, client.futures[-1].answer = "error", ZeroDivisionError("by 0")
    (ended,) = crew.ended(1)
    assert ended.lost == "worker a did not end it (ZeroDivisionError: by 0)"


def test_a_scheduler_that_is_silent_for_a_moment_takes_no_worker_away(tmp_path: Path) -> None:
    client = Client("a")
    crew = crew_of(client, tmp_path, Shown())
    crew.start(UNITS[0])
    client.silent = True
    assert crew.ended(0) == []
    assert crew.size == 1


def test_a_scheduler_that_goes_in_mid_run_takes_the_units_back_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client("a")
    crew = crew_of(client, tmp_path, Shown())
    crew.start(UNITS[0])
    del crew._wait

    def wait(futures: list[Future], **_: Any) -> None:
        client.status = "connecting"
        for one in futures:
            one.cancel()
        raise FuturesCancelledError([])

    monkeypatch.setattr("distributed.wait", wait)
    with pytest.raises(BrokenOff, match="the Dask scheduler is gone; what is finished is kept"):
        crew.ended(0)


def test_no_worker_is_said_and_then_ends_the_run(tmp_path: Path, clock: list[float]) -> None:
    shown = Shown()
    crew = crew_of(Client(), tmp_path, shown)
    for _ in range(31):
        assert not crew.is_free
        assert crew.ended(1) == []
    assert not shown.lines
    crew.ended(1)
    assert shown.lines == ["no Dask worker for 31 s; waiting for one"]
    with pytest.raises(BrokenOff, match=r"no Dask worker for 101 s \(--worker-timeout\).*is kept"):
        [crew.ended(1) for _ in range(200)]
    assert len(shown.lines) == 1


def test_a_scheduler_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    client = Client("a")
    crew = crew_of(client, tmp_path, Shown())
    crew.start(UNITS[0])
    client.status = "connecting"
    with pytest.raises(BrokenOff, match="the Dask scheduler is gone; what is finished is kept in"):
        crew.ended(1)


def test_a_worker_that_does_not_see_the_folder_is_refused(tmp_path: Path) -> None:
    client = Client("a", "b")
    client.blind = {"b"}
    crew = crew_of(client, tmp_path, Shown())
    with pytest.raises(BenchError, match="is not seen by worker b"):
        print(crew.is_free)
    assert not list(tmp_path.iterdir())


def test_progress_is_read_from_the_file_that_the_worker_writes(tmp_path: Path) -> None:
    class Staged(Shown):
        def stage(self, label: str, standing: Standing) -> None:
            self.lines.append(f"{label}: {standing.text}")

    shown, unit = Staged(), UNITS[0]
    crew = crew_of(Client("a"), tmp_path, shown)
    crew.start(unit)
    folder = tmp_path / "toy" / unit.cell.hash({"glyphs": "d"})
    folder.mkdir(parents=True)
    progress = Progress()
    progress.begin(folder, unit.cell.label)
    progress("fit", 3, 8)
    assert (folder / PROGRESS).exists()
    for _ in range(3):
        crew.ended(1)
    assert shown.lines == [f"{unit.cell.label}: fit 3/8"]
