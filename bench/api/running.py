"""A suite run from Python, as `bench run` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.api.process import Folder, as_it_was, cache_folder
from bench.api.records import Records
from bench.execute.devices import choose_device
from bench.execute.plan import Request, make_plan, run_command
from bench.execute.progress import Standing
from bench.execute.run import check_plan, run_here, run_plan
from bench.paths import default_data_dir, user_path

Say = Callable[[str], object]


def run(
    suite: str | Path,
    *,
    settings: Mapping[str, Any] = {},
    only: Sequence[str] = (),
    pool: str | None = None,
    seeds: int | None = None,
    runs: str | Path = "runs",
    cache: Folder = None,
    data_dir: Folder = None,
    dataset_dirs: Mapping[str, str | Path] = {},
    device: str | None = None,
    jobs: int | None = 1,
    threads: int = 1,
    say: Say | None = None,
) -> Records:
    """Run the cells of a suite that are not finished, and return the records of all its cells.

    It makes the records that `bench run` makes, in the same folders, and finds those that are
    there. No report is drawn; `bench report` and `bench ingest` make one, and the MLflow store,
    from the folder. Ctrl-C keeps the state; the same call goes on from it.

    Args:
        suite: a suite's name (`bench list suites`), or a YAML file.
        settings: as `--set`, by key: `{"budget": "micro", "purer.pixel_lr": 0.1}`.
        only: as `--only`: conditions `key=value` that cells must meet.
        pool: an imported pool in place of a trained one.
        seeds: repetitions; None takes the suite's.
        runs: where results go.
        cache: the folder of data, teachers and fits; None takes the commands'.
        data_dir: the folder of all data sets; None takes `$PURER_BENCH_DATA`.
        dataset_dirs: where single data sets are, or your own images.
        device: as `--device`; None takes the first accelerator, else the CPU.
        jobs: processes that share the cells; None takes as many as cores and memory allow. With 1
            this process computes.
        threads: CPU threads of each; another number may change rounding, and so results.
        say: called with a line for each cell that ends; `print` shows them.

    Returns:
        The records in the suite's order. A cell that failed or cannot be served has `status`
        `failed` or `skipped`, and says why in `reason`.

    Raises:
        BenchError: something in the request is wrong, or data is missing.
    """
    words = [f"{key}={_text(value)}" for key, value in settings.items()]
    words += [f"pool={pool}"] if pool is not None else []
    own = {name: user_path(path) for name, path in dataset_dirs.items()}
    folder = default_data_dir() if data_dir is None else user_path(data_dir)
    plan = make_plan(str(suite), words, only, seeds, cache_folder(cache), folder, own)
    request = Request(
        runs=user_path(runs),
        cache=cache_folder(cache),
        data_dir=folder,
        dataset_dirs=own,
        device=device,
        threads=threads,
        jobs=jobs,
        command=run_command(str(suite), words, seeds, own),
    )
    check_plan(plan, request)
    with as_it_was(choose_device(device), threads):
        display = _Said(len(plan.cells), say or (lambda line: None))
        return Records(run_plan(plan, request, run_here, display, lambda stored: None))


def _text(value: object) -> str:
    """Return a value as `--set KEY=VALUE` takes it."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


class _Said:
    """A display that says one line for each cell that ends."""

    def __init__(self, n_cells: int, say: Say) -> None:
        self._n_cells, self._say = n_cells, say
        self._n_done = 0

    def say(self, line: str, label: str = "") -> None:
        """Say one line that the user should know."""
        self._say(line)

    def start_cell(self, label: str) -> None:
        """Say nothing."""

    def stage(self, label: str, standing: Standing) -> None:
        """Say nothing."""

    def leave_cell(self, label: str) -> None:
        """Say nothing."""

    def end_cell(self, label: str, outcome: str) -> None:
        """Say how a cell ended."""
        self._n_done += 1
        self._say(f"[{self._n_done}/{self._n_cells}] {label}: {outcome}")
