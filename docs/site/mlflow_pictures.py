"""Pictures of MLflow's pages: the cells of a folder, a comparison, and a curve that grows.

The pages are those of `mlflow ui` over a store that is made here: of the stored records of the
suite `glyphs`, or, for the curve, of a fit that runs while the picture is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from playwright.sync_api import Page

STORED = Path(__file__).resolve().parents[2] / "results" / "glyphs"
COMPARED = "tags.method = 'purer' and params.k_shot = '1'"
FITTED = ("method=purer", "preset=tuned", "learner=maml", "k_shot=1")
SETTINGS = ("budget.meta_iterations=600", "budget.validate_every=10", "budget.n_val_tasks=20")
"""Of the fit whose curve is shown; it is stopped once the picture is taken."""
CURVE = "curve/val_accuracy"
POINTS = 12
"""Of the curve, when its picture is taken."""
SECONDS = 900
"""How long a fit may take to reach them."""


def cells_page(page: Page, folder: Path) -> None:
    """Show the cells of `STORED`, the most accurate first."""
    with served(_ingested(folder)) as address:
        page.goto(f"{address}/#/experiments/1/runs?{VIEW}&viewStateShareKey=cells")
        page.get_by_text("matching runs").wait_for()
        page.get_by_role("button", name="Hide banner").click()
        _settle(page)


def compare_page(page: Page, folder: Path) -> None:
    """Show the comparison of `COMPARED` by accuracy."""
    with served(_ingested(folder)) as address:
        runs = json.dumps([run["info"]["run_id"] for run in _search(address, COMPARED)])
        page.goto(f'{address}/#/compare-runs?runs={runs}&experiments=["1"]&{VIEW}')
        chosen = "[class*=select-selection-item]:has-text('accuracy') [class*=item-remove]"
        page.locator(chosen).click()
        page.get_by_role("combobox").nth(1).click()
        options = page.locator("[class*=select-item-option]:visible")
        options.filter(has_text=re.compile("^accuracy$")).first.click()
        page.keyboard.press("Escape")
        _settle(page)


def curve_page(page: Page, folder: Path) -> None:
    """Show the curves of a run that is being fitted.

    Raises:
        click.ClickException: the fit ends, or it has too few points after `SECONDS`.
    """
    words = [
        "run",
        "glyphs",
        *(f"--only={one}" for one in FITTED),
        *(f"--set={one}" for one in SETTINGS),
        "--no-figures",
    ]
    words += ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]
    fit = subprocess.Popen([_program("bench"), *words], stdout=subprocess.DEVNULL)
    try:
        store = folder / "runs" / "mlflow.db"
        _wait(store.exists, fit)
        with served(store) as address:
            _wait(lambda: any(_points(address, run) >= POINTS for run in _running(address)), fit)
            (run,) = _running(address)
            runs = f"{address}/#/experiments/1/runs/{run}"
            page.goto(f"{runs}/model-metrics?{VIEW}")
            page.get_by_placeholder("Search metric charts").fill("accuracy|inversion|outer")
            page.get_by_text(CURVE.partition("/")[2]).first.wait_for()
            _settle(page)
    finally:
        fit.send_signal(signal.SIGTERM)
        fit.wait()


PAGES = {"mlflow-cells": cells_page, "mlflow-compare": compare_page, "mlflow-curve": curve_page}
"""By name of the picture: what brings a browser's page to what is shown, with a folder to use."""
VIEW = "workflowType=machine_learning"
_CLOSED = "localStorage.setItem('mlflow.assistant.{}_v1', '{}');"
CLOSE_ASSISTANT = _CLOSED.format("fab.autoOpenedOnFirstLoad", "true") + _CLOSED.format(
    "panelOpen", "false"
)
"""A script for a new page; MLflow opens its assistant at the first visit."""


@contextlib.contextmanager
def served(store: Path) -> Iterator[str]:
    """Serve a store on this machine; give the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["ui", "--backend-store-uri", f"sqlite:///{store}", "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [_program("mlflow"), *words, "--workers", "1"]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(address), server)
        yield address
    finally:
        server.terminate()
        server.wait()


def _ingested(folder: Path) -> Path:
    runs = folder / "runs"
    shutil.copytree(STORED, runs / STORED.name)
    subprocess.run([_program("bench"), "ingest", "--runs", str(runs)], check=True)
    return runs / "mlflow.db"


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _wait(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        if process.poll() is not None or time.monotonic() > end:
            words = " ".join(process.args[1:3])
            raise click.ClickException(f"{words}: it ended, or was not so far after {SECONDS} s")
        time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/health", timeout=10).close()
    except OSError:
        return False
    return True


def _search(address: str, words: str) -> Sequence[dict[str, Any]]:
    body = json.dumps({"experiment_ids": ["1"], "filter": words, "max_results": 100}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer).get("runs", [])
    except urllib.error.HTTPError:  # the experiment is not there yet
        return []


def _running(address: str) -> list[str]:
    words = "tags.kind = 'cell' and attributes.status = 'RUNNING'"
    return [run["info"]["run_id"] for run in _search(address, words)]


def _points(address: str, run: str) -> int:
    query = f"run_id={run}&metric_key={CURVE}"
    history = f"{address}/api/2.0/mlflow/metrics/get-history?{query}"
    with urllib.request.urlopen(history, timeout=60) as answer:
        return len(json.load(answer).get("metrics", []))


def _settle(page: Page) -> None:
    page.wait_for_timeout(3000)  # plots are drawn after the page says that it is loaded
