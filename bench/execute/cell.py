"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from bench import registry
from bench.errors import BenchError, Skip, file_problem, is_of_storage
from bench.execute.fits import Fit
from bench.execute.fitting import FITTED, Fitted, fit_cell
from bench.execute.log import log_file
from bench.execute.machine import describe_device, describe_environment
from bench.execute.scenario import command_for, summarise_pool, warnings_of
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
from bench.stops import OverTime, Stopped
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
    (folder / DONE).unlink(missing_ok=True)
    write_json(folder / "config.json", cell.model_dump(mode="json"))
    started, begun = datetime.datetime.now(datetime.UTC), time.monotonic()
    sampler = SystemSampler(state.device, state.progress.sampled)
    with log_file(folder) as logger, sampler:
        logger.info("cell %s: %s", cell.hash(state.digests), cell.label)
        if again:
            logger.info("%s; running it again", again)
        state.progress.begin(folder, cell.label, started.replace(microsecond=0).timestamp())
        outcome = _Outcome("failed", failed) if failed else _try(cell, folder, state, lease, logger)
        logger.info("%s%s", outcome.status, f": {outcome.reason}" if outcome.reason else "")
    if "timing" in outcome.parts:
        outcome.parts["timing"].peak_memory_bytes = sampler.peak_memory_bytes
    outcome.parts["energy_j"] = sampler.energy_j
    state.progress.end()
    # On a clock of its own, a cell never ends before it starts, even if the clock is set back.
    ended = started + datetime.timedelta(seconds=time.monotonic() - begun)
    record = _record(cell, state, outcome, started, ended)
    write_parquet(folder / "system.parquet", sampler.rows)
    write_json(folder / RECORD, record.model_dump(mode="json"))
    mark_done(folder)
    (folder / FITTED).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Outcome:
    """How a cell ended: what its record says of that, and its parts that only a scored cell has."""

    status: Literal["done", "failed", "skipped"]
    reason: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)


def _try(
    cell: Cell, folder: Path, state: RunState, lease: Lease, logger: logging.Logger
) -> _Outcome:
    """Fit and test a cell, and say how that ended; raises what ends more than this cell."""
    try:
        with computing_in(cell.protocol.precision, state.device):
            parts = _fit_and_test(cell, folder, state.limited(), logger)
        lease.check()
        return _Outcome("done", None, parts)
    except Busy as busy:
        logger.info("left: %s", busy)
        state.progress.end()
        raise
    except Skip as skipped:
        return _Outcome("skipped", str(skipped))
    except (BenchError, OverTime) as error:
        return _Outcome("failed", str(error))
    except Exception as error:
        if isinstance(error, OSError) and is_of_storage(error):
            raise
        logger.error("%s", traceback.format_exc())
        return _Outcome("failed", _reason(error))
    except KeyboardInterrupt as stopped:
        logger.info("ended on request%s", f": {kept} kept" if (kept := _kept(stopped)) else "")
        raise


def _record(
    cell: Cell,
    state: RunState,
    outcome: _Outcome,
    started: datetime.datetime,
    ended: datetime.datetime,
) -> Record:
    """Return the record of a cell that ended."""
    parts = dict(outcome.parts)
    method = registry.load("method", cell.method)
    return Record(
        status=outcome.status,
        reason=outcome.reason,
        suite=state.suite,
        cell_hash=cell.hash(state.digests),
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
        ended=ended.isoformat(timespec="seconds"),
        **cell.model_dump(mode="json", exclude={"pool"}),
        **parts,
    )


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


def _reason(error: Exception) -> str:
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return file_problem(error) if isinstance(error, OSError) and error.errno else line
