"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench import registry
from bench.errors import BenchError, Skip, file_problem, is_of_storage
from bench.execute.fits import Fit
from bench.execute.fitting import FITTED, Fitted, fit_cell
from bench.execute.machine import describe_device, describe_environment
from bench.execute.record_parts import command_for, summarise_pool, warnings_of
from bench.execute.state import RunState
from bench.execute.status import CodeMemory, Here, cell_code, record_doubt
from bench.execute.testing import score_cell
from bench.execute.timing import SystemSampler
from bench.leases import Busy, Lease, hold
from bench.nets.precision import computing_in
from bench.processes import this_process
from bench.results.codebase import installed_code
from bench.results.files import write_bytes, write_json, write_parquet
from bench.results.maker import trusted
from bench.results.record import FitSummary, ProcessFacts, Record
from bench.results.store import (
    CURVE,
    DONE,
    FINAL,
    RECORD,
    SIMILARITY,
    beside,
    cell_state,
    mark_done,
    read_record,
    recover,
    replace,
)
from bench.seeds import seed_global_state
from bench.stops import Stopped
from bench.suites.cell import Cell
from bench.teachers.similarity import stored_similarity, write_similarity


def run_cell(cell: Cell, state: RunState) -> Path:
    """Run one cell unless it is finished, and return its folder; a failure becomes its record.

    Raises:
        Busy: another process is at the cell, its fit or the last of its teachers.
        OSError: a disk, file system or limit fails, which would fail all later cells, too.
        Stopped: the end was asked for; what was done of the cell is kept.
    """
    with _held(cell, state) as (folder, lease):
        if (found := cell_state(folder).name) not in FINAL:
            folder.mkdir(exist_ok=True)
            _run(cell, folder, state, lease)
        elif found != "newer" and (doubt := _doubt(cell, folder, state)):
            return _run_beside(cell, folder, state, lease, doubt)
    return folder


def fail_cell(cell: Cell, state: RunState, reason: str) -> Path:
    """Record that a cell failed unless it is finished, and return its folder.

    Raises:
        Busy: another process is at the cell.
    """
    with _held(cell, state) as (folder, lease):
        if cell_state(folder).name not in FINAL:
            folder.mkdir(exist_ok=True)
            _run(cell, folder, state, lease, failed=reason)
    return folder


@contextlib.contextmanager
def _held(cell: Cell, state: RunState) -> Iterator[tuple[Path, Lease]]:
    """Give a cell's folder and hold its lease."""
    folder = state.folder / cell.hash(state.digests)
    state.folder.mkdir(parents=True, exist_ok=True)
    with hold(folder.with_name(f".{folder.name}.lease"), cell.label) as lease:
        recover(folder)
        yield folder, lease


def _doubt(cell: Cell, folder: Path, state: RunState) -> str | None:
    """Say why a finished cell is run again, or None; see `status.record_doubt`."""
    if state.trust_stored:
        return None
    now = Here(torch.get_num_threads(), lambda: state.device.type == "cpu")
    return record_doubt(read_record(folder).record, cell, CodeMemory(state.cache), now)


def _run_beside(cell: Cell, folder: Path, state: RunState, lease: Lease, doubt: str) -> Path:
    """Run a cell again; its older record is replaced once the new one is finished.

    Returns:
        The cell's folder, or where the new run failed, its own.
    """
    new = beside(folder)
    _run(cell, new, state, lease, doubt)
    if cell_state(new).name not in FINAL:
        return new
    replace(folder, new)
    return folder


def _run(
    cell: Cell, folder: Path, state: RunState, lease: Lease, again: str = "", failed: str = ""
) -> None:
    """Run a cell and write its record.

    Args:
        cell: the cell.
        folder: for its files.
        state: of the run.
        lease: of the cell.
        again: why it is run again, though it was finished.
        failed: why it is not tried, but recorded as failed.

    Raises:
        Busy: another process is at something that it needs, or took the cell over.
        Stopped: the end was asked for.
    """
    name = cell.hash(state.digests)
    (folder / DONE).unlink(missing_ok=True)
    write_json(folder / "config.json", cell.model_dump(mode="json"))
    started, begun = datetime.datetime.now(datetime.UTC), time.monotonic()
    logger = _file_logger(folder)
    logger.info("cell %s: %s", name, cell.label)
    if again:
        logger.info("%s; running it again", again)
    state.progress.begin(folder, cell.label, started.replace(microsecond=0).timestamp())
    parts: dict[str, Any] = {}
    method = registry.load("method", cell.method)
    with SystemSampler(state.device, state.progress.sampled) as sampler:
        try:
            with computing_in(cell.protocol.precision, state.device):
                parts = {} if failed else _fit_and_test(cell, folder, state, logger)
            status, reason = ("failed", failed) if failed else ("done", None)
            lease.check()
        except Busy as busy:
            logger.info("left: %s", busy)
            _close(logger)
            state.progress.end()
            raise
        except Skip as skipped:
            status, reason = "skipped", str(skipped)
        except BenchError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            if isinstance(error, OSError) and is_of_storage(error):
                _close(logger)
                raise
            status, reason = "failed", _reason(error)
            logger.error("%s", traceback.format_exc())
        except KeyboardInterrupt as stopped:
            logger.info("ended on request%s", f": {kept} kept" if (kept := _kept(stopped)) else "")
            _close(logger)
            raise
    if "timing" in parts:
        parts["timing"].peak_memory_bytes = sampler.peak_memory_bytes
    logger.info("%s%s", status, f": {reason}" if reason else "")
    _close(logger)
    state.progress.end()
    record = Record(
        status=status,
        reason=reason,
        suite=state.suite,
        cell_hash=name,
        identity=cell.hashed(state.digests),
        dataset_digests={d: state.data[d].digest for d in cell.datasets},
        knowledge=method.knowledge_of(method.Config.model_validate(cell.method_config)),
        inference=cell.inference,
        variant=cell.variant,
        selection=cell.protocol.selection if parts.pop("validated", False) else "last",
        device=describe_device(state.device),
        environment=describe_environment(),
        process=ProcessFacts(**{key: this_process()[key] for key in ("host", "pid")}),
        command=command_for(cell, state.command),
        code=cell_code(installed_code(), cell),
        warnings=[*warnings_of(cell), *parts.pop("notes", ())],
        started=started.isoformat(timespec="seconds"),
        ended=_after(started, time.monotonic() - begun),
        **cell.model_dump(mode="json", exclude={"pool"}),
        **parts,
    )
    write_parquet(folder / "system.parquet", sampler.rows)
    write_json(folder / RECORD, record.model_dump(mode="json"))
    mark_done(folder)
    (folder / FITTED).unlink(missing_ok=True)


def _fit_and_test(
    cell: Cell, folder: Path, state: RunState, logger: logging.Logger
) -> dict[str, Any]:
    """Fit and test a cell; return the parts of the record that only a scored cell has.

    Raises:
        Skip: the method cannot serve the cell, and why.
        BenchError: it could, but something went wrong.
    """
    seed_global_state(cell.method, cell.seed)
    fitted = fit_cell(cell, state, folder / FITTED)
    fit, pool = fitted.fit, fitted.known.pool
    logger.info(
        "fit %s: %.1f s%s", fit.sha256, fit.elapsed.seconds, " (reused)" if fit.reused else ""
    )
    tested = score_cell(fitted, folder, state)
    _copy_fit_files(fit, folder)
    similarity = stored_similarity(state.cache, pool, fitted.known.sets, state.device)
    if similarity is not None:
        write_similarity(folder / SIMILARITY, similarity)
    accuracy, doubts = tested["accuracy"], tested.pop("doubts")
    logger.info("accuracy %.4f over %d tasks", accuracy.mean, accuracy.n)
    return {
        **tested,
        "pool": summarise_pool(pool, cell.pool) if len(pool) else None,
        "fit": FitSummary(
            sha256=fit.sha256,
            reused=fit.reused,
            strategies=fit.strategies,
            code=fit.code,
            threads=fit.threads,
        ),
        "validated": fitted.known.method.validates,
        "notes": [*fitted.notes(), *map(trusted, [*_doubts(cell, fitted, state), *doubts])],
        "extra": fit.extra,
    }


def _doubts(cell: Cell, fitted: Fitted, state: RunState) -> list[str]:
    """Say which parts the cell took as stored though they would be made otherwise now."""
    if not state.trust_stored:
        return []
    found = [fitted.fit.doubt] if fitted.fit.doubt else []
    teachers = fitted.known.pool if cell.pool is None else ()
    others = [one.name for one in teachers if not state.makers.made_alike(one)]
    if others:
        found.append(f"other code or threads made {len(others)} teachers ({', '.join(others)})")
    return found


def _copy_fit_files(fit: Fit, folder: Path) -> None:
    """Give the cell its own copy of the fit's curves and images: a record stands alone."""
    for path in [fit.folder / CURVE, *sorted(fit.folder.glob("images/*.png"))]:
        if path.exists():
            write_bytes(folder / path.relative_to(fit.folder), path.read_bytes())


def _kept(stopped: KeyboardInterrupt) -> str:
    return stopped.kept if isinstance(stopped, Stopped) else ""


def _after(start: datetime.datetime, seconds: float) -> str:
    """Return the time so much later, which is never before it, even if the clock is set back."""
    return (start + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _reason(error: Exception) -> str:
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return file_problem(error) if isinstance(error, OSError) and error.errno else line


class _LogFile(logging.FileHandler):
    """A log that raises where it cannot be written, as all other files of a cell do."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            error.filename = error.filename or self.baseFilename
        if error is not None:
            raise error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what it could not flush was raised when written
            super().close()


def _file_logger(folder: Path) -> logging.Logger:
    logger = logging.getLogger(f"purer_bench.{folder.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = _LogFile(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
