"""`bench doctor`: installed versions, devices, threads and data sets found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import click

from bench.cli.data import data_rows
from bench.cli.folding import print_columns
from bench.cli.options import (
    cache_option,
    data_option,
    dataset_dir_option,
    json_option,
    pairs,
    runs_option,
)


@click.command()
@data_option
@dataset_dir_option
@cache_option
@runs_option
@click.option("--deep", is_flag=True, help="Also compare all that is stored with its digests.")
@json_option
@click.pass_context
def doctor(
    context: click.Context,
    data_dir: Path | None,
    dataset_dirs: tuple[str, ...],
    cache: Path,
    runs: Path,
    deep: bool,
    as_json: bool,
) -> None:
    """Show versions, devices, threads and the data found.

    With --deep, read the cache and the runs in full, and exit 1 where a file is not what was
    written.
    """
    from bench.execute.integrity import damaged

    findings = diagnose(cache, data_dir, pairs(dataset_dirs))
    lines = damaged(cache, runs) if deep else []
    if as_json:
        click.echo(json.dumps(findings | ({"damaged": lines} if deep else {}), indent=1))
    else:
        print_columns(findings)
        for line in lines:
            click.echo(f"damaged: {line}")
        if lines:
            click.echo("a run makes again what it needs of these; the others can be deleted")
        if deep and not lines:
            click.echo(f"nothing is damaged in {cache} and {runs}")
    if lines:
        context.exit(1)


def diagnose(
    cache: Path, data_dir: Path | None, dataset_dirs: Mapping[str, Path]
) -> dict[str, str]:
    """Return the facts about the installation that a bug report needs."""
    import torch

    from bench.execute.devices import accelerator_name, accelerators, choose_device, limits
    from bench.execute.machine import cpu_name, describe_environment
    from bench.processes import available_cores

    environment = describe_environment()
    found: dict[str, str] = {"python": f"{environment.python} on {environment.platform}"}
    found |= dict(environment.packages)
    dirty = " with uncommitted changes" if environment.git_dirty else ""
    found["commit"] = (environment.git_commit or "none: not a checkout of git") + dirty
    found["cpu"] = cpu_name()
    found["threads"] = f"{torch.get_num_threads()} of {available_cores()} cores"
    for device in accelerators():
        found[str(device)] = accelerator_name(device)
        found[f"{device} lacks"] = "; ".join(limits(device)) or "nothing that is used"
    found["device chosen"] = str(choose_device("auto"))
    if not accelerators():
        found["device chosen"] += " (no accelerator found)"
    found["dask"] = "installed" if _importable("distributed") else "not installed: extra 'dask'"
    usage = shutil.disk_usage(cache if cache.exists() else Path.cwd())
    found["cache"] = f"{cache} ({usage.free / 2**30:.0f} GiB free)"
    for row in data_rows(data_dir, dataset_dirs):
        found[f"data {row['name']}"] = row["found"] or f"not found; {row['how_to_get']}"
    return found


def _importable(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
