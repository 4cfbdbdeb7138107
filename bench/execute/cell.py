"""One cell from configuration to record: data, pool, fit, learner, test tasks, files."""

from __future__ import annotations

import datetime
import logging
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench import registry
from bench.errors import BenchError, Skip
from bench.execute.machine import describe_device, describe_environment
from bench.execute.score import score
from bench.execute.timing import SystemSampler
from bench.execute.workplace import Workplace
from bench.nets.precision import computing_in
from bench.results.files import write_json, write_parquet
from bench.results.record import Record
from bench.results.store import RECORD, is_finished, mark_done
from bench.suites.cell import Cell

FEW_TASKS = 200
"""Below this many test tasks a record carries a warning: the interval is ±1.4 points or more at
a standard deviation of 10."""


def run_cell(cell: Cell, place: Workplace) -> Path:
    """Run one cell unless it is finished, and return its folder; never raises for its failure.

    Two processes that want the same cell wait for one another.
    """
    name = cell.hash(place.digests)
    folder = place.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder / f".{name}.lock"):
        if not has_result(folder):
            _run(cell, name, folder, place)
    return folder


def has_result(folder: Path) -> bool:
    """Tell whether a cell is finished for good: done or skipped, and every file intact."""
    if not is_finished(folder):
        return False
    text = (folder / RECORD).read_text(encoding="utf-8")
    return '"status": "failed"' not in text


def _run(cell: Cell, name: str, folder: Path, place: Workplace) -> None:
    (folder / "DONE").unlink(missing_ok=True)
    write_json(folder / "config.json", cell.model_dump(mode="json"))
    started = _now()
    logger = _file_logger(folder)
    logger.info("cell %s: %s", name, cell.label)
    parts: dict[str, Any] = {}
    method = registry.load("method", cell.method)
    with SystemSampler(place.device) as sampler:
        try:
            with computing_in(cell.protocol.precision, place.device):
                parts = score(cell, folder, place, logger)
            status, reason = "done", None
        except Skip as skipped:
            status, reason = "skipped", str(skipped)
        except BenchError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
            logger.error("%s", traceback.format_exc())
    if "timing" in parts:
        parts["timing"].peak_memory_bytes = sampler.peak_memory_bytes
    logger.info("%s%s", status, f": {reason}" if reason else "")
    _close(logger)
    record = Record(
        status=status,
        reason=reason,
        suite=place.suite,
        cell_hash=name,
        dataset_digests={d: place.data[d].digest for d in cell.datasets},
        knowledge=method.knowledge_of(method.Config.model_validate(cell.method_config)),
        variant=cell.variant,
        selection=cell.protocol.selection if parts.pop("validated", False) else "last",
        device=describe_device(place.device),
        environment=describe_environment(),
        command=_command(cell, place.command),
        warnings=[*_warnings(cell), *parts.pop("notes", ())],
        started=started,
        ended=_now(),
        **cell.model_dump(mode="json", exclude={"pool"}),
        **parts,
    )
    write_parquet(folder / "system.parquet", sampler.rows)
    write_json(folder / RECORD, record.model_dump(mode="json"))
    mark_done(folder)


def _warnings(cell: Cell) -> list[str]:
    """Return what a reader should know before trusting the number."""
    found = []
    if describe_environment().git_dirty:
        found.append("the checkout had uncommitted changes")
    if cell.protocol.teachers == "untrained" and registry.load("method", cell.method).uses_pool:
        found.append("the teachers are untrained; accuracies say nothing about the methods")
    if cell.protocol.selection == "test_max":
        found.append("the checkpoint was selected on test tasks")
    if cell.protocol.task_list == "redrawn":
        found.append("each evaluation drew its own tasks; differences cannot be paired")
    if cell.n_test_tasks < FEW_TASKS:
        found.append(f"only {cell.n_test_tasks} test tasks")
    return found


def _command(cell: Cell, command: str) -> str:
    """Return a command that runs this cell and its like."""
    variant = f" --only 'variant={cell.variant}'" if cell.variant else ""
    return f"{command} --only method={cell.method}{variant}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _file_logger(folder: Path) -> logging.Logger:
    logger = logging.getLogger(f"purer_bench.{folder.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
