"""Dask engine: workers on one or many machines run the cells in a shared runs folder.

Workers hold one process each with pinned threads. Teachers of a pool are trained as tasks of
their own, so that workers share the work instead of waiting for one another's locks.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.run import Display
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState

SCHEDULER = "PURER_BENCH_SCHEDULER"
RETRIES = 2


def run_dask(
    plan: ResolvedSuite, cells: Sequence[Cell], request: Request, display: Display
) -> Iterator[tuple[Cell, Path]]:
    """Run cells on Dask workers; yield each with its folder as it ends.

    `PURER_BENCH_SCHEDULER` names a scheduler's address or file; without it, a local cluster with
    one single-threaded worker a core is started.

    Raises:
        BenchError: the extra is not installed, the scheduler does not answer, or a worker does
            not see the runs folder.
    """
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise BenchError(
            "--executor dask needs the extra 'dask'; pip install 'purer-bench[dask]'"
        ) from None
    from bench.cores import available_cores

    target = os.environ.get(SCHEDULER)
    with (
        _cluster(LocalCluster, target, available_cores()) as cluster,
        _client(Client, cluster, target) as client,
    ):
        _check_shared(client, request.runs)
        request = _pinned(request)
        trained = [
            client.submit(_train, plan.suite.name, cell, index, request, retries=RETRIES)
            for cell, index in _missing_teachers(plan, cells, request)
        ]
        for number, future in enumerate(as_completed(trained), 1):
            future.exception()  # waits; what fails here fails the cells that need the teacher
            display.stage("teachers", number, len(trained))
        futures = {
            client.submit(_run, plan.suite.name, cell, request, retries=RETRIES, pure=False): cell
            for cell in cells
        }
        n_workers = len(client.scheduler_info()["workers"])
        display.start_cell(f"{len(cells)} cells on {n_workers} workers")
        for future in as_completed(futures):
            yield futures[future], Path(future.result())


def _cluster(local: Any, target: str | None, cores: int) -> Any:
    import contextlib

    if target:
        return contextlib.nullcontext()
    return local(n_workers=cores, threads_per_worker=1, processes=True, dashboard_address=None)


def _client(client: Any, cluster: Any, target: str | None) -> Any:
    try:
        if target and Path(target).is_file():
            return client(scheduler_file=target, timeout="20s")
        return client(target or cluster, timeout="20s")
    except (OSError, ValueError) as error:
        raise BenchError(
            f"Dask scheduler '{target}' does not answer ({error}); correct {SCHEDULER}"
        ) from None


def _pinned(request: Request) -> Request:
    from dataclasses import replace

    return replace(
        request,
        threads=request.threads or 1,
        runs=request.runs.resolve(),
        cache=request.cache.resolve(),
        data_dir=request.data_dir and request.data_dir.resolve(),
        dataset_dirs={name: path.resolve() for name, path in request.dataset_dirs.items()},
    )


def _check_shared(client: Any, runs: Path) -> None:
    token = runs.resolve() / f".shared-{uuid.uuid4().hex}"
    token.touch()
    try:
        blind = [worker for worker, seen in client.run(_exists, str(token)).items() if not seen]
    finally:
        token.unlink()
    if blind:
        raise BenchError(
            f"runs folder '{runs}' is not seen by worker {blind[0]}; "
            "all workers must share it: name a shared folder with --runs"
        )


def _exists(path: str) -> bool:
    return Path(path).exists()


def _missing_teachers(
    plan: ResolvedSuite, cells: Sequence[Cell], request: Request
) -> list[tuple[Cell, int]]:
    from bench.execute.devices import choose_device
    from bench.execute.machine import planned_threads
    from bench.execute.scenario import plan_teachers, refused_by_plan
    from bench.execute.state import Makers
    from bench.teachers.store import is_stored

    device = choose_device(request.device).type
    threads = planned_threads(request.threads, request.cache)
    makers = Makers(request.runs, threads, device, request.trust_stored, lambda line: None)
    wanted: dict[str, tuple[Cell, int]] = {}
    for cell in cells:
        method = registry.load("method", cell.method)
        if not method.uses_pool or refused_by_plan(method, cell):
            continue
        for index, teacher in enumerate(plan_teachers(cell, plan.data)):
            if not is_stored(request.cache, teacher, makers.teacher(teacher)):
                wanted.setdefault(teacher.model_dump_json(), (cell, index))
    return list(wanted.values())


def _workplace(suite: str, cell: Cell, request: Request) -> RunState:
    from bench.data.sources import dataset_source
    from bench.execute.devices import use_device
    from bench.execute.machine import prepare_process
    from bench.execute.state import RunState

    prepare_process(request.threads)
    data = {
        name: open_data(
            dataset_source(name, request.dataset_dirs),
            request.cache,
            request.data_dir,
            request.dataset_dirs.get(name),
        )
        for name in cell.datasets
    }
    return RunState(
        suite=suite,
        runs=request.runs,
        cache=request.cache,
        device=use_device(request.device),
        data=data,
        command=request.command,
        trust_stored=request.trust_stored,
    )


def _train(suite: str, cell: Cell, index: int, request: Request) -> None:
    from bench.execute.scenario import plan_teachers
    from bench.teachers.store import build_pool

    state = _workplace(suite, cell, request)
    teacher = plan_teachers(cell, state.data)[index]
    build_pool(state.cache, [teacher], state.data, state.device)


def _run(suite: str, cell: Cell, request: Request) -> str:
    from bench.execute.cell import run_cell

    return str(run_cell(cell, _workplace(suite, cell, request)))
