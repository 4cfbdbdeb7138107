"""`bench teachers`: train, list, export and import pools of teachers."""

from __future__ import annotations

import functools
import json
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.main import outlive_reader
from bench.cli.options import cache_option, checkpoint_option, json_option, resolve, suite_options
from bench.errors import BenchError
from bench.paths import UserPath, user_path
from bench.stops import Stop, Stopped

if TYPE_CHECKING:
    from bench.contract import Pool
    from bench.execute.plan import Request, ResolvedSuite
    from bench.execute.progress import Progress, Standing
    from bench.execute.state import RunState
    from bench.results.maker import Maker


@click.group()
def teachers() -> None:
    """Train, list, export and import pools of teachers."""


@teachers.command()
@suite_options
@checkpoint_option
def train(**options: Any) -> None:
    """Train the pools that a suite's cells need; what is stored is not trained again."""
    resolved, request = resolve(options, True)
    for label, pool in _pools(resolved, request):
        click.echo(f"{label}: {_counted(pool)}, mean accuracy {pool.mean_accuracy:.3f}")


@teachers.command("list")
@click.argument("name", required=False)
@cache_option
@json_option
def list_pools(name: str | None, cache: Path, as_json: bool) -> None:
    """List the teachers, or those of one imported pool: accuracies, who made them, classes."""
    rows = _rows(cache, name)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("no pool was imported; see bench teachers import --help")
    for row in rows:
        click.echo(
            f"{row['pool']}/{row['teacher']}  {row['architecture']}, {row['image_size']} px, "
            f"{row['dataset']}, accuracy {row['accuracy']:.3f}, code {row['code'][:12]}, threads "
            f"{row['threads']}: {', '.join(row['classes'])}"
        )


@teachers.command()
@suite_options
@checkpoint_option
@click.option("--to", "folder", type=UserPath(), required=True)
def export(folder: Path, **options: Any) -> None:
    """Write a suite's pool to a folder: safetensors, cards, digests; train missing teachers."""
    from bench.teachers.transfer import export_pool

    if folder.exists():
        raise BenchError(f"'{folder}' exists; export to a folder that is not there yet")
    resolved, request = resolve(options, True)
    pools = list(_pools(resolved, request))
    if len(pools) != 1:
        raise BenchError(
            f"suite {options['suite']} has {len(pools)} pools; keep one with --only or --set"
        )
    label, pool = pools[0]
    export_pool(list(pool), resolved.suite.name.replace("_", "-"), label, folder)
    click.echo(f"{_counted(pool)} written to {folder}")


@teachers.command("import")
@click.argument("name")
@click.argument("path", type=UserPath())
@click.option("--net", help="Registered name, torchvision:NAME or timm:NAME.")
@click.option("--classes", help="Class names in the order of the outputs: a,b,c or a file.")
@click.option("--dataset", help="The data set it was trained on.")
@click.option("--image-size", type=click.IntRange(8), help="Side of its images, pixels.")
@click.option("--mean", default="0.485,0.456,0.406", show_default=True)
@click.option("--std", default="0.229,0.224,0.225", show_default=True)
@click.option("--accuracy", type=float, help="Held-out accuracy as you measured it, 0 to 1.")
@click.option("--sha256", help="Digest of the file, compared before it is parsed.")
@click.option("--allow-pickle", is_flag=True, help="Read a .pth, weights only.")
@cache_option
def import_(name: str, path: Path, cache: Path, **options: Any) -> None:
    """Import teachers into the pool NAME: an exported folder, or one checkpoint at a time.

    A run uses the pool with --pool NAME.
    """
    from bench.teachers.checkpoint import import_checkpoint
    from bench.teachers.transfer import import_pool

    if path.is_dir():
        index = import_pool(cache, name, path)
    else:
        allow_pickle, sha256 = options.pop("allow_pickle"), options.pop("sha256")
        card = _card(options)
        index = import_checkpoint(cache, name, path, card, allow_pickle, sha256, click.echo)
    click.echo(f"pool {name}: {_counted(index.teachers)}, digest {index.sha256[:12]}")


def _counted(teachers: Sequence[Any]) -> str:
    return f"{len(teachers)} teacher{'' if len(teachers) == 1 else 's'}"


def _pools(resolved: ResolvedSuite, request: Request) -> Iterator[tuple[str, Pool]]:
    """Yield each distinct pool of a plan's cells with a line that says what it is.

    A signal ends the training that is under way, whose state is kept.
    """
    from bench.checkpoints import Keeping
    from bench.execute.devices import use_device
    from bench.execute.machine import prepare_process
    from bench.execute.run import check_plan
    from bench.execute.state import RunState

    outlive_reader()
    check_plan(resolved, request)
    prepare_process(request.threads)
    keeping = Keeping(request.checkpoint_every, Stop(), lambda line: click.echo(line, err=True))
    state = RunState(
        suite=resolved.suite.name,
        runs=request.runs,
        cache=request.cache,
        device=use_device(request.device),
        data=resolved.data,
        command=request.command,
        progress=_said(),
        keeping=keeping,
    )
    try:
        with keeping.stop.on_signals():
            yield from _distinct(resolved, state)
    except Stopped as stopped:
        click.echo(f"interrupted: kept {stopped.kept}; run the same command again", err=True)
        raise


def _distinct(resolved: ResolvedSuite, state: RunState) -> Iterator[tuple[str, Pool]]:
    from bench import registry
    from bench.execute.state import own_pool
    from bench.leases import patiently

    seen = set()
    for cell in resolved.cells:
        if registry.load("method", cell.method).uses_pool:
            pool = patiently(
                functools.partial(own_pool, cell, state),
                state.keeping.stop.check,
                state.keeping.say,
            )
            if pool.sha256 not in seen:
                seen.add(pool.sha256)
                yield (
                    f"{cell.scenario} {'+'.join(cell.datasets)}, {'+'.join(cell.architectures)}, "
                    f"protocol {cell.protocol.name}, budget {cell.budget.name}, seed {cell.seed}",
                    pool,
                )


def _said() -> Progress:
    """Return what says how far the training is, a line every ten seconds and at the end."""
    from bench.cli.display import PLAIN_INTERVAL
    from bench.execute.progress import Progress

    last = time.monotonic()

    def say(standing: Standing) -> None:
        nonlocal last
        if standing.done == standing.total or time.monotonic() - last >= PLAIN_INTERVAL:
            last = time.monotonic()
            click.echo(standing.text, err=True)

    return Progress(say)


def _card(options: dict[str, Any]) -> dict[str, Any]:
    """Return a card's fields from the flags; those that have no default must be given."""
    for key in ("net", "classes", "dataset", "image_size", "accuracy"):
        if options[key] is None:
            raise BenchError(f"--{key.replace('_', '-')} is missing; a checkpoint needs it")
    return {
        "architecture": options["net"],
        "class_names": class_names(options["classes"]),
        "dataset": options["dataset"],
        "image_size": options["image_size"],
        "accuracy": options["accuracy"],
        "mean": _numbers("--mean", options["mean"]),
        "std": _numbers("--std", options["std"]),
    }


def class_names(text: str) -> tuple[str, ...]:
    """Return the names that the flag gives, or the lines of the file that it names."""
    if "," in text:
        return _names(text.split(","))
    try:
        lines = user_path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise BenchError(
            f"--classes '{text}' is no readable file ({reason}); name a file with one class per "
            "line, or the classes as a,b,c"
        ) from None
    return _names(lines)


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return class names in the one spelling that data sets have."""
    names = (unicodedata.normalize("NFC", text.strip()) for text in texts)
    return tuple(name for name in names if name)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise BenchError(f"{flag} {text} is not three numbers, as in 0.485,0.456,0.406")
    return numbers


def _rows(cache: Path, name: str | None) -> list[dict[str, Any]]:
    """Return one row per teacher: trained ones of the cache, then those of imported pools."""
    from bench.teachers.cards import pool_folder, pool_names, read_card, read_index

    rows = [] if name is not None else _trained_rows(cache)
    for pool in [name] if name is not None else pool_names(cache):
        folder = pool_folder(cache, pool)
        for stored in read_index(folder).teachers:
            card = read_card(folder, stored)
            rows.append(
                {
                    "pool": pool,
                    "teacher": stored.folder,
                    "dataset": card.dataset,
                    "architecture": card.architecture,
                    "image_size": card.image_size,
                    "accuracy": card.accuracy,
                    "classes": list(card.class_names),
                    "sha256": stored.weights_sha256,
                    "source": card.source,
                    **_made_by(None),
                }
            )
    return rows


def _made_by(maker: Maker | None) -> dict[str, Any]:
    """Return the code and the threads that trained a teacher, as far as they are known."""
    if maker is None:
        return {"code": "unknown", "threads": "unknown"}
    return {"code": maker.code.digest, "threads": maker.threads}


def _trained_rows(cache: Path) -> list[dict[str, Any]]:
    from bench.results.maker import stamped
    from bench.teachers.cards import trained_card

    rows = []
    for path in sorted((cache / "teachers").glob("*/teacher.json")):
        try:
            card = trained_card(path.parent)
        except BenchError as error:
            click.echo(f"left out: {error}; a run trains it again", err=True)
            continue
        plan = card["plan"]
        recipe = plan["recipe"]
        rows.append(
            {
                "pool": "trained",
                "teacher": path.parent.name,
                "dataset": plan["dataset"],
                "architecture": plan["architecture"],
                "image_size": plan["image_size"],
                "accuracy": card["accuracy"],
                "classes": card["class_names"],
                "sha256": card["sha256"],
                "source": f"{recipe['epochs']} epochs, {recipe['checkpoint']}, seed {plan['seed']}",
                **_made_by(stamped(card)),
            }
        )
    return sorted(rows, key=lambda row: (row["dataset"], row["architecture"], row["classes"]))
