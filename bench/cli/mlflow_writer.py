"""Writes a run into MLflow while it runs, in a thread of its own that the run never waits for."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.leases import Busy, Lease

if TYPE_CHECKING:
    from bench.results.curve_file import CurveReader, Row
    from bench.results.mlflow import Tracker
    from bench.results.mlflow_store import Store
    from bench.results.mlflow_view import Point
    from bench.results.store import StoredRecord

LOOK_EVERY = 2.0
"""Seconds between two looks at which cells are under way."""
SHOW_EVERY = 15.0
"""Seconds between two additions to the run of a cell under way."""
TRY_EVERY = 60.0
"""Seconds for which a server that did not answer is left alone."""
FEW = 20
"""Records that are written and looked for one by one; more are at once."""
LONGEST_CLOSE = 60.0
"""Seconds that the end of a run waits for a server."""


@dataclass
class _LiveCell:
    """The run of a cell under way, and what it shows."""

    run_id: str
    curve: CurveReader
    seen: set[Any] = field(default_factory=set)
    shown_at: float = float("-inf")


class MlflowWriter:
    """The MLflow store of a run; it shows what the files of cells say, and breaks no run.

    Args:
        store: where to write.
        suite: whose cells are shown while they are under way.
        say: gets each line that the user should see.
    """

    def __init__(
        self,
        store: Store,
        suite: str,
        say: Callable[[str], object] = lambda line: click.echo(line, err=True),
    ) -> None:
        self.store, self._suite, self._say = store, suite, say
        self._tracker: Tracker | None = None
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._turn: Lease | None = None
        self._live: dict[tuple[Path, float], _LiveCell] = {}
        self._failed = float("-inf")
        self._said = False

    def start(self) -> None:
        """Open the store, and begin to show cells that are under way.

        A store that is a file is open when this returns, or it is said why not; a server is left to
        the thread.
        """
        from bench.results.mlflow import load

        load()
        if not self.store.is_server:
            self._try(self._open)
        self._thread.start()

    def ingest(self, stored: StoredRecord) -> None:
        """Have a record written."""
        self._work.put(lambda: self._opened().ingest(stored))

    def close(self, stored: Sequence[StoredRecord], report: Path | None) -> None:
        """Write what the store lacks of a suite, and its report; say so where that failed.

        Args:
            stored: the suite's records.
            report: the folder of its rendered report, where there is one.
        """
        if not self._thread.is_alive():
            if not self.store.pending(stored):
                return
            self.start()
        self._work.put(lambda: self._finish(stored, report))
        self._end(LONGEST_CLOSE if self.store.is_server else None)

    def stop(self) -> None:
        """End early: the runs of cells under way are closed until they are taken up again."""
        if self._thread.is_alive():
            self._work.put(self._interrupt)
            self._end(LONGEST_CLOSE / 4)

    def _end(self, seconds: float | None) -> None:
        self._work.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._complain(TimeoutError(f"no end after {seconds:.0f} s"))

    def _run(self) -> None:
        while True:
            try:
                task = self._work.get(timeout=LOOK_EVERY)
            except queue.Empty:
                task = self.look
            if task is None:
                break
            self._try(task)
        if self._turn is not None:
            self._turn.release()

    def _try(self, task: Callable[[], object]) -> None:
        """Do one thing, unless the store failed a moment ago; a failure is one line."""
        if time.monotonic() - self._failed < TRY_EVERY:
            return
        try:
            task()
        except Exception as error:
            if self.store.is_server or self._tracker is None:
                self._failed = time.monotonic()
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            text = f"MLflow store {self.store.shown}: {self.store.reason(error)}"
            text = str(error) if isinstance(error, BenchError) else text
            self._say(
                f"{text}; the run goes on, and {self.store.ingest_command} writes what is missing"
            )

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._open()
        assert self._tracker is not None
        return self._tracker

    def _open(self) -> None:
        from bench.execute.progress import under_way
        from bench.results.mlflow import Tracker
        from bench.results.store import place_of

        tracker = Tracker(self.store)
        tracker.close_abandoned(place_of(folder) for folder, _ in under_way(self.store.runs))
        self._tracker = tracker

    def _finish(self, stored: Sequence[StoredRecord], report: Path | None) -> None:
        from bench.results.mlflow_rows import ingest_new

        tracker, todo = self._opened(), self.store.pending(stored)
        todo = ingest_new(tracker, todo) if len(todo) > FEW else todo
        known = tracker.cells() if len(todo) > FEW else None
        for one in todo:
            tracker.ingest(one, known)
        tracker.close_suite(self._suite, stored)
        if report is not None:
            tracker.attach_report(self._suite, report)

    def _interrupt(self) -> None:
        for cell in self._live.values():
            self._opened().interrupt(cell.run_id)

    def look(self) -> None:
        """Show what is new of the cells under way, unless another process shows this folder's."""
        from bench.execute.progress import under_way

        if not self._has_turn():
            return
        found = {}
        for folder, facts in under_way(self.store.runs, self._suite):
            key = (folder, facts["started"])
            cell = self._live.get(key) or self._begin(folder, facts["started"])
            if cell is None:
                continue
            found[key] = cell
            if time.monotonic() - cell.shown_at >= SHOW_EVERY:
                self._show(cell, facts)
        self._live = found

    def _has_turn(self) -> bool:
        if self._turn is None:
            lease = Lease(self.store.runs / ".mlflow-live.lease", "MLflow's view of what runs")
            with contextlib.suppress(Busy):
                lease.take()
                self._turn = lease
        return self._turn is not None

    def _begin(self, folder: Path, started: float) -> _LiveCell | None:
        from bench.results.curve_file import CurveReader
        from bench.results.mlflow_view import begun, key_of
        from bench.results.store import CONFIG, place_of

        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it ended just now
            return None
        run_id, points = self._opened().begin(begun(config, *place_of(folder)), started)
        return _LiveCell(run_id, CurveReader(folder), set(map(key_of, points)))

    def _show(self, cell: _LiveCell, facts: Mapping[str, Any]) -> None:
        from bench.results.mlflow_view import key_of

        points = [one for one in _points(cell.curve.rows(), facts) if key_of(one) not in cell.seen]
        self._opened().log(cell.run_id, points)
        cell.seen |= set(map(key_of, points))
        cell.shown_at = time.monotonic()


def _points(rows: Sequence[Row], facts: Mapping[str, Any]) -> Iterator[Point]:
    """Yield what a cell's files say: points of its curves, speed, and a sample of the system."""
    from bench.results.mlflow_view import Point, curve_point, system_sample

    now = int(1000 * time.time())
    for step, name, value in rows:
        yield curve_point(step, name, value, now)
    if facts["stage"] == "fit" and facts["rate"] is not None:
        yield Point("fit_steps_per_second", facts["rate"], now, facts["done"])
    if (system := facts.get("system")) is not None:
        sample = {name: value for name, value in system["values"].items() if name != "seconds"}
        start = int(1000 * facts["started"])
        yield from system_sample(sample, start, system["seconds"], system["number"])
