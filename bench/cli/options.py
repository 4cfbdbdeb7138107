"""Options that several commands share, and the objects that they stand for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.paths import DATA_VARIABLE, UserPath, default_cache, user_path

if TYPE_CHECKING:
    from bench.execute.plan import Request, ResolvedSuite


data_option = click.option(
    "--data",
    "data_dir",
    type=UserPath(),
    envvar=DATA_VARIABLE,
    help="Folder that holds <name>.zip or <name>/ of each data set.",
)
dataset_dir_option = click.option(
    "--dataset-dir",
    "dataset_dirs",
    multiple=True,
    metavar="NAME=PATH",
    help="Where one data set is, or your own set of images; repeatable.",
)
cache_option = click.option(
    "--cache",
    type=UserPath(),
    default=default_cache,
    help="Decoded data, teachers, fits.  [default: the user's cache folder]",
)
runs_option = click.option(
    "--runs",
    type=UserPath(),
    default=Path("runs"),
    show_default=True,
    help="Where results go.",
)
mlflow_option = click.option(
    "--mlflow-uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="ADDRESS",
    help="MLflow server or store.  [default: mlflow.db in --runs]",
)
checkpoint_option = click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Least time between two checkpoints; 0: after each step.  [default: 120]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
_SUITE_OPTIONS = [
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting."),
    click.option("--pool", help="An imported pool in place of a trained one."),
    click.option("--only", multiple=True, metavar="KEY=VALUE", help="Keep the cells that match."),
    click.option("--seeds", type=click.IntRange(1), help="Repetitions: seeds 0 … N-1."),
    click.option("--device", help="auto, cpu, xpu, mps, cuda or cuda:N[,N…].  [default: auto]"),
    data_option,
    dataset_dir_option,
    cache_option,
    runs_option,
]


def suite_options(function: Callable[..., Any], metavar: str = "SUITE") -> Callable[..., Any]:
    """Add the argument and the options that name a suite, its cells, data and folders."""
    for option in reversed(_SUITE_OPTIONS):
        function = option(function)
    return click.argument("suite", metavar=metavar)(function)


named_suite_options = functools.partial(suite_options, metavar="NAME")
"""The same for a verb whose argument may name other things, too."""


def resolve(options: dict[str, Any], quiet: bool) -> tuple[ResolvedSuite, Request]:
    """Return the suite that the options name, resolved into cells, and where to run it.

    Args:
        options: what `suite_options` gave the verb, and `threads` where it has that.
        quiet: whether the preparation of data goes unreported.
    """
    from bench.execute.plan import Request, make_plan, run_command

    dataset_dirs = pairs(options["dataset_dirs"])
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
        preparing(quiet),
    )
    request = Request(
        runs=options["runs"],
        cache=options["cache"],
        data_dir=options["data_dir"],
        dataset_dirs=dataset_dirs,
        device=options["device"],
        threads=options.get("threads") or 1,
        jobs=options.get("jobs"),
        command=run_command(options["suite"], options["settings"], options["seeds"], dataset_dirs),
        trust_stored=options.get("trust_stored", False),
        **_given(options, "checkpoint_every"),
        **_given(options, "time_limit"),
        **_given(options, "worker_timeout"),
    )
    return resolved, request


def _given(options: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an option by name where the user gave it."""
    return {} if options.get(name) is None else {name: options[name]}


def pairs(dataset_dirs: tuple[str, ...]) -> dict[str, Path]:
    """Return the paths of `--dataset-dir NAME=PATH` by name.

    Raises:
        BenchError: one is not of that form.
    """
    found = {}
    for text in dataset_dirs:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise BenchError(f"--dataset-dir '{text}' is not NAME=PATH, as in cifar_fs=/data/x.zip")
        found[name] = user_path(path)
    return found


def preparing(quiet: bool) -> Callable[[int, int, str], None] | None:
    """Return a progress callback for data preparation: one updating line, or nothing."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(done: int, total: int, label: str) -> None:
        line = f"{label}: {done} of {total}"
        click.echo(f"\r{line:<60}", nl=done >= total, err=True)

    return show
