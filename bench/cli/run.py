"""`bench plan` and `bench run`: a suite's cells, shown and run."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.main import outlive_reader
from bench.cli.options import (
    checkpoint_option,
    json_option,
    mlflow_option,
    resolve,
    suite_options,
)
from bench.errors import BenchError, BrokenOff, file_problem
from bench.stops import Stopped

if TYPE_CHECKING:
    from bench.cli.mlflow_writer import MlflowWriter
    from bench.execute.plan import Request, ResolvedSuite
    from bench.execute.sharing import Engine
    from bench.execute.status import Status
    from bench.results.store import StoredRecord


@click.command()
@suite_options
@click.option(
    "--slurm",
    "n_tasks",
    type=click.IntRange(1),
    metavar="N",
    help="Print a batch script of a Slurm array of N tasks instead.",
)
@click.option("--time", metavar="H:M:S", help="Its time limit.  [default: from the plan]")
@json_option
def plan(as_json: bool, n_tasks: int | None, time: str | None, **options: Any) -> None:
    """Show the cells of a suite, which of them are finished, and the estimated time."""
    from bench.cli.plan_table import plan_rows, print_plan
    from bench.execute.machine import loading

    with loading():
        resolved, request = resolve(options, quiet=as_json or n_tasks is not None)
        rows = plan_rows(resolved, request)
    if n_tasks is not None:
        from bench.cli.slurm import sbatch_script

        name = resolved.suite.name
        click.echo(sbatch_script(options, request, name, rows, n_tasks, time), nl=False)
    elif as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        print_plan(resolved, request, rows)


@click.command()
@suite_options
@click.option(
    "--jobs",
    type=click.IntRange(1),
    envvar="PURER_BENCH_JOBS",
    help="Processes that share the cells.  [default: as many as cores and memory allow]",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each.  [default: 1]")
@checkpoint_option
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="A cell that takes longer ends at its next step; what it did is kept.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "dask", "slurm"]),
    default="local",
    help="Processes of this machine, Dask workers, or an array of --jobs Slurm tasks.",
)
@click.option("--time", metavar="H:M:S", help="Limit of a Slurm task.  [default: from the plan]")
@click.option(
    "--worker-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest time without any Dask worker.  [default: 300]",
)
@click.option(
    "--trust-stored",
    is_flag=True,
    help="Take teachers, fits and cells of other code or threads; records say so.",
)
@click.option("--mlflow/--no-mlflow", default=True, help="Write the MLflow store.")
@mlflow_option
@click.option("--figures/--no-figures", default=True, help="Draw the closing report's figures.")
@click.option(
    "--tables",
    default="screen",
    show_default=True,
    metavar="KINDS",
    help="What is printed at the end: one screen, all tables, or kinds of tables.",
)
@json_option
@click.pass_context
def run(
    context: click.Context,
    /,
    executor: str,
    time: str | None,
    mlflow: bool,
    mlflow_uri: str | None,
    figures: bool,
    tables: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the cells of a suite that are not finished, then report."""
    from bench.execute.machine import loading
    from bench.execute.run import check_plan

    outlive_reader()
    live = sys.stdout.isatty() and not as_json
    with loading():
        resolved, request = resolve(options, quiet=not live)
        states = check_plan(resolved, request)
    execute = _executor(executor, options, time)
    writer = _mlflow_writer(resolved, request, mlflow_uri, states) if mlflow else None
    try:
        stored, notices = _run(resolved, request, execute, writer, live, as_json, states)
        _close(context, resolved, request, stored, notices, writer, figures, tables, as_json)
    except KeyboardInterrupt as stopped:
        if writer is not None:
            writer.stop()
        click.echo(f"interrupted: {_kept(resolved, request, stopped)}", err=True)
        raise
    except OSError as error:
        raise BrokenOff(f"{file_problem(error)}; {_kept(resolved, request)}") from error
    if _say_failed(stored):
        context.exit(1)


def _close(
    context: click.Context,
    resolved: ResolvedSuite,
    request: Request,
    stored: Sequence[StoredRecord],
    notices: Mapping[str, list[str]],
    writer: MlflowWriter | None,
    figures: bool,
    tables: str,
    as_json: bool,
) -> None:
    """Print the records or their report, write what the MLflow store lacks, name the places."""
    suite = resolved.suite.name
    folder = request.runs / suite
    report = None
    if as_json:
        click.echo(json.dumps([_row(one, resolved, notices) for one in stored], indent=1))
    elif stored:
        report = _report(context, folder, figures, tables)
    if writer is not None:
        writer.close(stored, report)
    if not as_json:
        click.echo(f"records  {folder}/<cell>/record.json")
        if writer is not None:
            for label, way in zip(("runs    ", "at      "), writer.store.ways_in(), strict=False):
                click.echo(f"{label} {way}")


def _mlflow_writer(
    resolved: ResolvedSuite, request: Request, mlflow_uri: str | None, states: Sequence[Status]
) -> MlflowWriter:
    """Return what writes the MLflow store, at work where a cell will be run."""
    from bench.cli.mlflow_writer import MlflowWriter
    from bench.results.mlflow_store import Store

    writer = MlflowWriter(Store(request.runs, mlflow_uri), resolved.suite.name)
    if not all(state.is_finished for state in states):
        writer.start()
    return writer


def _run(
    resolved: ResolvedSuite,
    request: Request,
    execute: Engine,
    writer: MlflowWriter | None,
    live: bool,
    as_json: bool,
    states: Sequence[Status],
) -> tuple[list[StoredRecord], dict[str, list[str]]]:
    """Run the cells; return their records, and what was said of cells with `--json`, by label."""
    from bench.cli.display import QuietDisplay, make_display
    from bench.execute.run import run_plan, unfinished

    finished = writer.ingest if writer else _nothing
    quiet = QuietDisplay(len(resolved.cells), functools.partial(click.echo, err=True))
    cells = unfinished(resolved, states) if live else ()
    display = quiet if as_json else make_display(len(resolved.cells), click.echo, live, cells)
    with display:
        records = run_plan(resolved, request, execute, display, finished, states)
        return records, quiet.notices


def _executor(name: str, options: Mapping[str, Any], time: str | None) -> Engine:
    """Return the engine of a name; `time` is the limit of each Slurm task."""
    from bench.execute.run import run_here

    if time is not None and name != "slurm":
        raise BenchError(f"--time {time} limits Slurm tasks; leave it out, or add --executor slurm")
    if name == "dask":
        from bench.execute.dask import run_dask

        return run_dask
    if name == "slurm":
        from bench.cli.slurm_array import Array

        return Array(options, time)
    return run_here


def _row(
    stored: StoredRecord, resolved: ResolvedSuite, notices: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Return a record as JSON, with its folder and what was said of its cell."""
    name = stored.record.cell_hash
    label = next(cell.label for cell in resolved.cells if cell.hash(resolved.digests) == name)
    said = {"folder": str(stored.folder), "notices": notices.get(label, [])}
    return {**said, **stored.record.model_dump(mode="json")}


def _report(context: click.Context, folder: Path, figures: bool, tables: str) -> Path | None:
    """Print the closing screen or tables of a suite and write its report; None without a verb."""
    root = context.find_root()
    group = root.command
    report = group.get_command(root, "report") if isinstance(group, click.Group) else None
    if report is None:
        return None
    context.invoke(report, runs=folder, output=folder / "report", figures=figures, printed=tables)
    return folder / "report"


def _say_failed(stored: Sequence[StoredRecord]) -> bool:
    failed = [one for one in stored if one.record.status == "failed"]
    for one in failed:
        click.echo(
            f"failed: {one.record.method}: {one.record.reason} (see {one.folder}/log.txt)", err=True
        )
    return bool(failed)


def _kept(
    resolved: ResolvedSuite, request: Request, stopped: KeyboardInterrupt | None = None
) -> str:
    """Say what is kept of a run that broke off, and how to go on."""
    from bench.execute.status import statuses

    states = statuses(resolved, request)
    finished = sum(state.is_finished for state in states)
    kept = f"kept {stopped.kept}; " if isinstance(stopped, Stopped) and stopped.kept else ""
    return (
        f"{kept}{finished} of {len(states)} cells are finished in "
        f"{request.runs / resolved.suite.name}; run the same command again to go on"
    )


def _nothing(*_: Any) -> None:
    pass
