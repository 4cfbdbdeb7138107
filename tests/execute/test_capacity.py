"""How many processes compute: by devices, cores, memory, and what there is to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from bench.execute import capacity as rules
from bench.execute.capacity import GIB, capacity
from bench.execute.plan import Request, ResolvedSuite
from bench.suites.cell import Cell
from bench.suites.suite import MethodEntry, Suite
from tests.helpers import cell_of, toy_data

CELLS = [cell_of("random"), cell_of("average"), cell_of("purer")]


@pytest.fixture
def plan() -> ResolvedSuite:
    entry = MethodEntry(method="random")
    suite = Suite(
        name="toy",
        title="toy",
        scenario="SS",
        datasets=["glyphs"],
        methods=[entry],
        architectures=["conv4"],
    )
    return ResolvedSuite(suite, CELLS, {"glyphs": toy_data()}, {}, {})


@pytest.fixture
def request_here(tmp_path: Path) -> Request:
    return Request(tmp_path / "runs", tmp_path / "cache", None, {}, "cpu", 1, "bench")


def processes(
    monkeypatch: pytest.MonkeyPatch,
    plan: ResolvedSuite,
    request: Request,
    cores: int = 4,
    memory: float | None = 1,
    limit: float = 100,
    cells: list[Cell] = CELLS,
) -> rules.Capacity:
    """Return the rule's answer for some cores, and GB of memory of a cell and in all."""
    needed = None if memory is None else int(memory * GIB)
    monkeypatch.setattr(rules, "available_cores", lambda: cores)
    monkeypatch.setattr(rules, "peak_memory", lambda *_: needed)
    monkeypatch.setattr(rules, "memory_limit", lambda: int(limit * GIB))
    return capacity(plan, cells, request)


@pytest.mark.parametrize(
    ("given", "n", "why"),
    [
        ({}, 3, "4 cores, 1.0 of 100.0 GB per process"),
        ({"cores": 2}, 2, "2 cores, 1.0 of 100.0 GB per process"),
        ({"cores": 1}, 1, "1 cores"),
        ({"memory": 3, "limit": 7}, 2, "3.0 of 7.0 GB per process"),
        ({"memory": 3, "limit": 6}, 1, "3.0 of 6.0 GB per process"),
        ({"memory": 3, "limit": 1}, 1, "3.0 of 1.0 GB per process"),
        ({"memory": None}, 1, "nothing like a cell was ever measured, so its memory is not known"),
        ({"cells": CELLS[:1]}, 1, "there is one thing to do"),
        ({"cells": CELLS[1:2]}, 2, "4 cores, 1.0 of 100.0 GB per process"),
    ],
)
def test_processes_of_a_cpu(monkeypatch, plan, request_here, given, n, why) -> None:
    """The last has one cell, and two teachers that are still to be trained."""
    found = processes(monkeypatch, plan, request_here, **given)
    assert (found.devices, found.why) == (("cpu",) * n, why)


def test_threads_share_the_cores_and_the_user_may_choose(monkeypatch, plan, request_here) -> None:
    two = replace(request_here, threads=2)
    assert len(processes(monkeypatch, plan, two).devices) == 2
    chosen = replace(request_here, jobs=3)
    found = processes(monkeypatch, plan, chosen, cores=1, memory=None)
    assert found.text == "3 processes (--jobs)"
    many = replace(request_here, jobs=50)
    assert len(processes(monkeypatch, plan, many).devices) == len(CELLS)


def test_one_process_per_device(monkeypatch, plan, request_here) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    some = replace(request_here, device="cuda:1,3")
    assert processes(monkeypatch, plan, some).devices == ("cuda:1", "cuda:3")
    assert processes(monkeypatch, plan, replace(some, jobs=3)).devices[2] == "cuda:1"
    assert processes(monkeypatch, plan, some).why == "one per device"


def test_memory_of_a_cell_is_that_of_cells_like_it(plan, request_here) -> None:
    """Known from the stored results; one like none counts as the largest of its network."""
    own = [cell.model_copy(update={"calibration": "mine"}) for cell in CELLS[1:2]]
    assert rules.peak_memory(plan, own, request_here) is None, "images of 16 px were never measured"
    data = replace(plan, data={"glyphs": toy_data(size=32)})
    largest = rules.peak_memory(data, CELLS, request_here)
    assert largest is not None
    assert 0.5 * GIB < largest < 8 * GIB
    assert (rules.peak_memory(data, own, request_here) or 0) >= largest


def test_limits_of_the_machine_of_its_groups_and_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource", reason="POSIX only")
    available = psutil.virtual_memory().available
    assert 0 < rules.memory_limit() < 2 * available
    monkeypatch.setattr(rules, "_group_limits", lambda: [5 * GIB])
    monkeypatch.setattr(rules, "_user_limits", lambda: [3, 4 * GIB])
    assert rules.memory_limit() == 3
    monkeypatch.undo()
    kept = resource.getrlimit(resource.RLIMIT_RSS)
    resource.setrlimit(resource.RLIMIT_RSS, (2**30, kept[1]))
    try:
        assert 2**30 in rules._user_limits()
    finally:
        resource.setrlimit(resource.RLIMIT_RSS, kept)


def test_a_group_within_a_group_has_the_limits_of_both(tmp_path: Path) -> None:
    """What files leave in memory does not count as used; a group without a limit says `max`."""
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/x\n0::/slurm/job_7/step\n")
    for name, limit, anon in (("slurm/job_7/step", "max", 1), ("slurm/job_7", "1000", 300)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "memory.max").write_text(f"{limit}\n")
        (tmp_path / name / "memory.stat").write_text(f"anon {anon}\nfile 600\n")
    assert rules._group_limits(tmp_path, own) == [700]
    assert rules._group_limits(tmp_path, tmp_path / "absent") == []
