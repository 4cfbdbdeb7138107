"""A plan as a batch script of a Slurm array that shares the cells: `bench plan --slurm N`."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cli.options import pairs
from bench.errors import BenchError
from bench.execute.plan import Request
from bench.results.store import FINAL

SPARE = 1.5
"""Times and memory are asked for so many times over: estimates are rough."""
LEAST_S = 600
SAVED_BEFORE_S = 120
"""Seconds before the end of its time at which Slurm sends the signal to save the state."""

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={threads}
{memory}
#SBATCH --time={time}
#SBATCH --signal=B:USR1@{saved_before}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-{name}-%A-%a.txt
{gpu}# Each task takes cells that no other is at. The teachers come first, side by side.
# Where the time was too short, submit the script again: it goes on from what was saved.
exec {command}
"""


def sbatch_script(
    options: Mapping[str, Any],
    request: Request,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    n_tasks: int,
    time: str | None,
    program: Sequence[str] = ("bench",),
    more: Sequence[str] = (),
) -> str:
    """Return the batch script of a plan's cells that are not finished.

    Args:
        options: as the user gave them to the verb.
        request: where and how.
        name: of the suite.
        rows: of the plan.
        n_tasks: tasks of the array.
        time: limit of each task, as Slurm takes it; None takes it from the plan.
        program: the words that start this program.
        more: options of `bench run` for each task.

    Raises:
        BenchError: all cells are finished, the time of one is not known, or `time` is none.
    """
    left = [row for row in rows if row["status"] not in (*FINAL, "skipped")]
    if not left:
        raise BenchError(f"all cells of '{name}' are finished; there is nothing to submit")
    n_tasks = min(n_tasks, max(len(left), max(_lacking(row) for row in left)))
    words = [*program, "run", *_words(options, request), "--jobs=1", *more]
    limit = time or _time(left, n_tasks)
    return SCRIPT.format(
        name=name,
        last=n_tasks - 1,
        threads=request.threads,
        memory=_memory(left),
        time=limit,
        saved_before=min(SAVED_BEFORE_S, seconds_of(limit) // 2),
        gpu="" if request.device in (None, "auto", "cpu") else "#SBATCH --gres=gpu:1\n",
        command=shlex.join(words),
    )


def _lacking(row: Mapping[str, Any]) -> int:
    """Return how many teachers a cell needs that are not stored."""
    return (row["teachers"] or 0) - (row["teachers_stored"] or 0)


def _memory(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [row["memory_bytes"] for row in rows]
    if None in known:
        return "# add --mem: nothing like one of the cells was ever measured"
    return f"#SBATCH --mem={math.ceil(SPARE * max(known) / 2**30)}G"


def _time(rows: Sequence[Mapping[str, Any]], n_tasks: int) -> str:
    """Return a time that the longest cell fits into, and the share of a task, `hours:mm:ss`."""
    seconds = [row["seconds"] for row in rows]
    if None in seconds:
        unknown = next(row for row in rows if row["seconds"] is None)
        raise BenchError(
            f"the time of {unknown['method']} ({unknown['cell']}) is not known; "
            "give --time HH:MM:SS"
        )
    needed = SPARE * max(max(seconds), sum(seconds) / n_tasks) + SAVED_BEFORE_S
    minutes = math.ceil(max(LEAST_S, needed) / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def seconds_of(time: str) -> int:
    """Return the seconds of a time as Slurm takes it: `M`, `M:S`, `H:M:S`, or `D-H[:M[:S]]`.

    Raises:
        BenchError: it is none.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        raise BenchError(f"--time '{time}' is no time of Slurm's; give H:M:S, as in 02:30:00")
    days, *parts = found.groups()
    numbers = [int(one) for one in parts if one is not None]
    units = [3600, 60, 1] if days or len(numbers) == 3 else [60, 1]
    return 86400 * int(days or 0) + sum(a * b for a, b in zip(numbers, units, strict=False))


def _words(options: Mapping[str, Any], request: Request) -> list[str]:
    """Return the words of the command that runs the same cells, with paths that hold anywhere."""
    words = [_resolved(options["suite"])]
    for option, values in (("set", options["settings"]), ("only", options["only"])):
        words += [f"--{option}={value}" for value in values]
    if options["seeds"]:
        words.append(f"--seeds={options['seeds']}")
    if request.device:
        words.append(f"--device={request.device}")
    if request.threads > 1:
        words.append(f"--threads={request.threads}")
    if request.data_dir:
        words.append(f"--data={request.data_dir.resolve()}")
    for name, path in pairs(options["dataset_dirs"]).items():
        words.append(f"--dataset-dir={name}={path.resolve()}")
    return [*words, f"--cache={request.cache.resolve()}", f"--runs={request.runs.resolve()}"]


def _resolved(suite: str) -> str:
    """Return a suite's name, or the path of its file in full."""
    return str(Path(suite).resolve()) if Path(suite).is_file() else suite
