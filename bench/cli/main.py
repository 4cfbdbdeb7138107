"""The command line. Heavy imports happen inside the verb that needs them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from bench import __version__
from bench.cli.endings import Interrupted, error_line, exit_status
from bench.cli.streams import accept_all_characters
from bench.cli.teachers import add_teachers
from bench.errors import BenchError, unknown_name
from bench.paths import UserPath, user_path

_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises, from 8.2 on, for a group without a command."""
_ENVIRONMENT = {"data": "PURER_BENCH_DATA", "cache": "PURER_BENCH_CACHE"}


class _Group(click.Group):
    """Built-in verbs, and those that other packages offer through entry points."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *(p.name for p in _offered())})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        command = super().get_command(context, name)
        if command is None:
            command = next((p.load() for p in _offered() if p.name == name), None)
        return command

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(context))
        return super().resolve_command(context, args)


def _offered() -> Any:
    return entry_points(group="purer_bench.commands")


def _default_cache() -> Path:
    if os.environ.get("PURER_BENCH_CACHE"):
        return Path(os.environ["PURER_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "purer-bench"


_data_option = click.option(
    "--data",
    "data_dir",
    type=UserPath(),
    envvar=_ENVIRONMENT["data"],
    help="Folder that holds <name>.zip or <name>/ of each data set.",
)
_dataset_dir_option = click.option(
    "--dataset-dir",
    "dataset_dirs",
    multiple=True,
    metavar="NAME=PATH",
    help="Where one data set is, or your own set of images; repeatable.",
)
_cache_option = click.option(
    "--cache",
    type=UserPath(),
    default=_default_cache,
    help="Decoded data, teachers, fits.  [default: the user's cache folder]",
)
_runs_option = click.option(
    "--runs",
    type=UserPath(),
    default=Path("runs"),
    show_default=True,
    help="Where results go.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
_suite_options = [
    click.argument("suite"),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting."),
    click.option("--pool", help="An imported pool in place of a trained one."),
    click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the cells that match."),
    click.option("--seeds", type=click.IntRange(1), help="Repetitions: seeds 0 … N-1."),
    click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]"),
    _data_option,
    _dataset_dir_option,
    _cache_option,
    _runs_option,
]


def _with(options: list[Any]) -> Any:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bench")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Benchmark of data-free meta-learning: pools of teachers in, honest comparisons out."""


@cli.command("list")
@click.argument(
    "kind",
    type=click.Choice(["methods", "datasets", "suites", "learners", "calibrations", "nets"]),
)
@_json_option
def list_names(kind: str, as_json: bool) -> None:
    """List what can be named."""
    from bench import registry
    from bench.suites import suite

    if kind == "suites":
        rows = {name: suite.read_suite(name)[0].title for name in suite.suite_names()}
    else:
        rows = {n: registry.entry(kind[:-1], n).value for n in registry.names(kind[:-1])}
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        click.echo(f"{name:<{width}}  {text}")


@cli.command()
@_with(_suite_options)
@_json_option
def plan(**options: Any) -> None:
    """Show a suite's cells, what is there, what is to come."""
    from bench.cli.plan_table import plan_rows, print_plan

    as_json = options.pop("as_json")
    resolved, request = _resolve(options, quiet=as_json)
    rows = plan_rows(resolved, request)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        print_plan(resolved, rows)


@cli.command()
@_with(_suite_options)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's own]")
@click.option("--executor", type=click.Choice(["inline", "dask"]), default="inline")
@click.option("--mlflow/--no-mlflow", default=True, help="Write the MLflow store.")
@click.option("--figures/--no-figures", default=True, help="Draw the closing report's figures.")
@_json_option
@click.pass_context
def run(context: click.Context, **options: Any) -> None:
    """Run a suite; finished cells are not run again."""
    from bench.cli.display import make_display
    from bench.execute.run import check_plan, run_inline, run_plan, unfinished

    as_json, executor = options.pop("as_json"), options.pop("executor")
    with_mlflow, figures = options.pop("mlflow"), options.pop("figures")
    live = sys.stdout.isatty() and not as_json
    resolved, request = _resolve(options, quiet=not live)
    check_plan(resolved, request)
    execute = run_inline
    if executor == "dask":
        from bench.execute.dask import run_dask as execute
    echo = _nothing if as_json else click.echo
    trackers: list[Any] = []
    if with_mlflow and unfinished(resolved, request):
        _ingest(trackers, request.runs, [])  # a store that cannot be opened stops no cell half-way

    def finished(stored: Any) -> None:
        if with_mlflow:
            _ingest(trackers, request.runs, [stored])

    display = make_display(len(resolved.cells), echo, live)
    try:
        with display:
            stored = run_plan(resolved, request, execute, display, finished)
    except KeyboardInterrupt:
        _say_interrupted(resolved, request)
        raise
    _close(context, resolved, request, stored, trackers, with_mlflow, as_json, figures)


def _close(
    context: click.Context,
    resolved: Any,
    request: Any,
    stored: list[Any],
    trackers: list[Any],
    with_mlflow: bool,
    as_json: bool,
    figures: bool,
) -> None:
    """Print the closing table and where everything is; exit 1 if a cell failed."""
    from bench.results.mlflow import pending, ui_command

    folder = request.runs / resolved.suite.name
    output = folder / "report"
    if with_mlflow and (late := pending(request.runs, stored)):
        _ingest(trackers, request.runs, late)
    if as_json:
        rows = [{"folder": str(s.folder), **s.record.model_dump(mode="json")} for s in stored]
        click.echo(json.dumps(rows, indent=1))
    elif (report := cli.get_command(context, "report")) is not None:
        context.invoke(report, runs=folder, output=output, figures=figures)
        for tracker in trackers:
            tracker.attach_report(resolved.suite.name, output)
    failed = [s for s in stored if s.record.status == "failed"]
    if not as_json:
        click.echo(f"records  {folder}/<cell>/record.json")
        if with_mlflow:
            click.echo(f"runs     {ui_command(request.runs)}")
    for one in failed:
        click.echo(
            f"failed: {one.record.method}: {one.record.reason} (see {one.folder}/log.txt)", err=True
        )
    if failed:
        context.exit(1)


def _ingest(trackers: list[Any], runs: Path, stored: list[Any]) -> None:
    from bench.results.mlflow import open_tracker

    if not trackers:
        trackers.append(open_tracker(runs))
    for one in stored:
        try:
            trackers[0].ingest(one)
        except Exception as error:  # the store is a view: whatever breaks it breaks no run
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            click.echo(
                f"MLflow store: {one.record.cell_hash} was not written ({reason}); its record is: "
                f"bench ingest --runs {runs} tries again",
                err=True,
            )


def _say_interrupted(resolved: Any, request: Any) -> None:
    from bench.execute.run import cell_status

    states = [cell_status(resolved, request.runs, cell) for cell in resolved.cells]
    kept = sum(state in ("done", "skipped") for state in states)
    click.echo(
        f"interrupted: {kept} of {len(states)} cells are finished and kept in "
        f"{request.runs / resolved.suite.name}; the cell under way goes on from its last "
        "checkpoint: run the same command again",
        err=True,
    )


@cli.command()
@_runs_option
@click.option("--rebuild", is_flag=True, help="Start from an empty store.")
def ingest(runs: Path, rebuild: bool) -> None:
    """Write the records that are new into the MLflow store."""
    from bench.results.mlflow import open_tracker, pending, store_uri
    from bench.results.store import find_records

    stored = find_records(runs)
    if not stored:
        raise BenchError(f"no finished record below '{runs}'; run a suite first, or name --runs")
    if rebuild:
        (runs / "mlflow.db").unlink(missing_ok=True)
    todo = pending(runs, stored)
    tracker = open_tracker(runs) if todo else None
    for one in todo:
        tracker.ingest(one)
    for suite in sorted({one.record.suite for one in todo}):
        if (runs / suite / "report").is_dir():
            tracker.attach_report(suite, runs / suite / "report")
    click.echo(f"{len(todo)} of {len(stored)} records written to {store_uri(runs)}")


@cli.command()
@_data_option
@_dataset_dir_option
@_cache_option
@_json_option
def doctor(data_dir: Path | None, dataset_dirs: tuple, cache: Path, as_json: bool) -> None:
    """Show versions, devices, threads and the data found."""
    from bench.cli.doctor import diagnose

    findings = diagnose(cache, data_dir, _pairs(dataset_dirs))
    if as_json:
        click.echo(json.dumps(findings, indent=1))
        return
    for name, value in findings.items():
        click.echo(f"{name:<22}{value}")


@cli.group()
def data() -> None:
    """Look at, check and prepare data sets."""


@data.command("list")
@_data_option
@_dataset_dir_option
@_cache_option
@_json_option
def data_list(data_dir: Path | None, dataset_dirs: tuple, cache: Path, as_json: bool) -> None:
    """List the data sets, where each was found, and how to get it."""
    from bench.cli.doctor import check_places, data_rows

    check_places(data_dir, _pairs(dataset_dirs))
    rows = data_rows(data_dir, _pairs(dataset_dirs))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']:<22}{row['found'] or 'not found; ' + row['how_to_get']}")


@data.command()
@click.argument("name")
@_data_option
@_dataset_dir_option
@_cache_option
def verify(name: str, data_dir: Path | None, dataset_dirs: tuple, cache: Path) -> None:
    """Check a data set's classes, counts and digest; exit 1 where something differs."""
    from bench.cli.doctor import verify_data

    problems = verify_data(name, cache, data_dir, _pairs(dataset_dirs), click.echo)
    if problems:
        click.get_current_context().exit(1)


@data.command()
@click.argument("name")
@_data_option
@_dataset_dir_option
@_cache_option
@click.option("--download", is_flag=True, help="Fetch what is missing from the authors' page.")
def prepare(
    name: str, data_dir: Path | None, dataset_dirs: tuple, cache: Path, download: bool
) -> None:
    """Decode a data set into the cache, once; goes on where it was interrupted."""
    from bench.data.opening import open_data
    from bench.data.sources import dataset_source

    source = dataset_source(name, _pairs(dataset_dirs))
    if download:
        from bench.data.download import fetch_missing

        if data_dir is None:
            raise BenchError("--download needs a folder to download into; name it with --data DIR")
        for path in fetch_missing(source, data_dir, _preparing(False)):
            click.echo(f"downloaded {path}")
    prepared = open_data(source, cache, data_dir, _pairs(dataset_dirs).get(name), _preparing(False))
    counts = {split: int(part.counts.sum()) for split, part in prepared.splits.items()}
    click.echo(f"{name}: {counts} images, digest {prepared.digest[:16]}, in {cache / 'data'}")


def _resolve(options: dict[str, Any], quiet: bool) -> tuple[Any, Any]:
    from bench.execute.plan import make_plan
    from bench.execute.run import Request

    dataset_dirs = _pairs(options["dataset_dirs"])
    if (pool := options.pop("pool", None)) is not None:
        options["settings"] = (*options["settings"], f"pool={pool}")
    resolved = make_plan(
        options["suite"],
        options["settings"],
        options["only"],
        options["seeds"],
        options["cache"],
        options["data_dir"],
        dataset_dirs,
        _preparing(quiet),
    )
    request = Request(
        runs=options["runs"],
        cache=options["cache"],
        data_dir=options["data_dir"],
        dataset_dirs=dataset_dirs,
        device=options["device"],
        threads=options.get("threads"),
        command=_command(options),
    )
    return resolved, request


def _command(options: dict[str, Any]) -> str:
    """Return the command that runs the same cells again, without folders and device."""
    from bench.data.sources import own_names

    words = ["bench", "run", options["suite"]]
    for setting in options["settings"]:
        words += ["--set", setting]
    if options["seeds"]:
        words += ["--seeds", str(options["seeds"])]
    for name in own_names(_pairs(options["dataset_dirs"])):
        words += ["--dataset-dir", f"{name}=PATH"]
    return shlex.join(words)


def _pairs(dataset_dirs: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for text in dataset_dirs:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise BenchError(f"--dataset-dir '{text}' is not NAME=PATH, as in cifar_fs=/data/x.zip")
        found[name] = user_path(path)
    return found


def _preparing(quiet: bool) -> Any:
    """Return a progress callback for data preparation: one updating line, or nothing."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(done: int, total: int, label: str) -> None:
        line = f"{label}: {done} of {total}"
        click.echo(f"\r{line:<60}", nl=done >= total, err=True)

    return show


add_teachers(cli, _suite_options, _cache_option, _json_option, _resolve)


def _nothing(*_: Any) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line, and the exit status is the documented one.

    0 done; 1 a cell failed, a check found something, or an error that no input explains; 2 the
    request is wrong; 130 Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    accept_all_characters()
    try:
        status = cli.main(
            args=[word for word in words if word != "--debug"],
            prog_name="bench",
            standalone_mode=False,
        )
    except _NO_ARGUMENTS as error:
        error.show()
        sys.exit(error.exit_code)
    except (Exception, *Interrupted) as error:
        if debug:
            raise
        if not isinstance(error, Interrupted):
            click.echo(error_line(error), err=True)
        sys.exit(exit_status(error))
    sys.exit(status if isinstance(status, int) else 0)
