"""The process and its device: what is asked for is what the work goes to."""

from __future__ import annotations

import gc
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from bench.checkpoints import Keeping
from bench.cli.display import PlainDisplay
from bench.execute.machine import loading, prepare_process
from bench.execute.plan import Request
from bench.execute.progress import Progress
from bench.execute.run import run_inline
from bench.execute.sharing import Order, open_state
from bench.execute.timing import SystemSampler


@pytest.fixture
def made_current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Devices that were made the current one, where two are said to be there."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", devices.append)
    return devices


def request_on(device: str, tmp_path: Path) -> Request:
    return Request(tmp_path / "runs", tmp_path / "cache", None, {}, device, 1, "bench")


def test_cells_run_where_the_device_is_current(
    made_current: list[torch.device], tmp_path: Path
) -> None:
    plan = SimpleNamespace(suite=SimpleNamespace(name="none"), data={})
    request, display = request_on("cuda:1", tmp_path), PlainDisplay(0, print)
    assert list(run_inline(Order(plan, [], request, display, Keeping()))) == []
    assert made_current == [torch.device("cuda:1")]


def test_other_processes_make_the_device_current(
    made_current: list[torch.device], tmp_path: Path
) -> None:
    place = open_state("none", (), request_on("cuda:1", tmp_path), Progress(), Keeping())
    assert [place.device] == made_current == [torch.device("cuda:1")]


def test_garbage_is_looked_for_again_once_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    with loading():
        assert gc.isenabled()  # torch is here
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen == [False]
    with loading():
        monkeypatch.setitem(sys.modules, "triton", sys)  # what it holds is to be freed at the end
    assert gc.isenabled()
    assert frozen == [False]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing")
def test_a_small_cell_after_a_large_one_has_a_peak_of_its_own() -> None:
    prepare_process()
    blocks = [torch.ones(2**20) for _ in range(64)]  # 4 MiB each
    between = torch.ones(2**18)  # so that what is freed lies below what is not
    full = psutil.Process().memory_info().rss
    del blocks
    with SystemSampler(torch.device("cpu")) as sampler:
        peak = sampler.peak_memory_bytes
    assert peak < full - 200 * 2**20
    assert between.sum() == 2**18
