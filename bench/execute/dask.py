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
from bench.checkpoints import Keeping
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.execute.plan import Request, ResolvedSuite
from bench.execute.progress import Display, Standing
from bench.stops import LOOK_EVERY, Stop, Stopped
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from bench.execute.state import RunState

SCHEDULER = "PURER_BENCH_SCHEDULER"
RETRIES = 2


def run_dask(
    plan: ResolvedSuite,
    cells: Sequence[Cell],
    request: Request,
    display: Display,
    keeping: Keeping,
) -> Iterator[tuple[Cell, Path]]:
    """Run cells on Dask workers; yield each with its folder as it ends.

    `PURER_BENCH_SCHEDULER` names a scheduler's address or file; without it, a local cluster with
    one single-threaded worker a core is started.

    A request to end reaches the workers: each saves what it is at, and begins nothing new.

    Raises:
        BenchError: the extra is not installed, the scheduler does not answer, or a worker does
            not see the runs folder.
        Stopped: the end was asked for.
    """
    try:
        from distributed import Client, LocalCluster
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
        run_id = uuid.uuid4().hex
        kept: list[str] = []
        trained = [
            client.submit(_train, plan.suite.name, cell, index, request, run_id, retries=RETRIES)
            for cell, index in _missing_teachers(plan, cells, request)
        ]
        for number, future in enumerate(_ended(client, trained, keeping.stop, run_id), 1):
            if future.exception() is None:  # what fails here fails the cells that need the teacher
                kept += filter(None, [future.result()])
            display.stage(Standing("teachers", number, len(trained)))
        keeping.stop.check("; ".join(kept))
        futures = {
            client.submit(
                _run, plan.suite.name, cell, request, run_id, retries=RETRIES, pure=False
            ): cell
            for cell in cells
        }
        n_workers = len(client.scheduler_info()["workers"])
        display.start_cell(f"{len(cells)} cells on {n_workers} workers")
        for future in _ended(client, list(futures), keeping.stop, run_id):
            folder, saved = future.result()
            if folder is not None:
                yield futures[future], Path(folder)
            elif saved:
                kept.append(saved)
        keeping.stop.check("; ".join(kept))


def _ended(client: Any, futures: Sequence[Any], stop: Stop, run_id: str) -> Iterator[Any]:
    """Yield futures as they end; pass a request to end on to the workers, once."""
    from distributed import wait

    left, passed_on = set(futures), False
    while left:
        if stop.signum is not None and not passed_on:
            client.run(_request_stop, run_id, stop.signum)
            passed_on = True
        try:
            found: Any = wait(list(left), timeout=LOOK_EVERY, return_when="FIRST_COMPLETED")
        except TimeoutError:
            continue
        left -= found.done
        yield from found.done


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


_STOPS: dict[str, Stop] = {}
"""In a worker: the request to end of each run that it works for."""


def _request_stop(run_id: str, signum: int) -> None:
    _STOPS.setdefault(run_id, Stop()).request(signum)


def _worker_state(suite: str, cell: Cell, request: Request, run_id: str) -> RunState:
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
        keeping=Keeping(request.checkpoint_every, _STOPS.setdefault(run_id, Stop())),
        trust_stored=request.trust_stored,
    )


def _train(suite: str, cell: Cell, index: int, request: Request, run_id: str) -> str | None:
    """Train a teacher; return what is kept of it where the end was asked for."""
    from bench.execute.scenario import plan_teachers
    from bench.teachers.store import build_pool

    state = _worker_state(suite, cell, request, run_id)
    teacher = plan_teachers(cell, state.data)[index]
    try:
        state.keeping.stop.check()
        build_pool(state.cache, [teacher], state.data, state.device, keeping=state.keeping)
    except Stopped as stopped:
        return stopped.kept
    return None


def _run(suite: str, cell: Cell, request: Request, run_id: str) -> tuple[str | None, str]:
    """Run a cell; return its folder, or None and what is kept where the end was asked for."""
    from bench.execute.cell import run_cell

    state = _worker_state(suite, cell, request, run_id)
    try:
        state.keeping.stop.check()
        return str(run_cell(cell, state)), ""
    except Stopped as stopped:
        return None, stopped.kept
