"""A real server of MLflow runs on the loopback, with authentication off and on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.results.find import find_records
from bench.results.mlflow import Tracker
from bench.results.mlflow_store import Store

RESULTS = Path(__file__).parents[2] / "results"
USER, PASSWORD = "admin", "a password of twelve"
AUTH = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def started(folder: Path, words: list[str], port: int) -> subprocess.Popen[bytes]:
    """Start a server, and return once it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--backend-store-uri=sqlite:///{folder}/team.db", "--workers=1"]
    command += [f"--artifacts-destination={folder}/artifacts", *words]
    variables = {"MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini"}
    variables |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "any", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.txt").open("wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=log, stderr=log, process_group=0
        )
    deadline = time.monotonic() + 300
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return server
        said = (folder / "server.txt").read_text(errors="replace")
        assert server.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the records of two cells, and the settings of a server."""
    for place in sorted(RESULTS.glob("glyphs/*/record.json"))[:2]:
        shutil.copytree(place.parent, tmp_path / "runs" / "glyphs" / place.parent.name)
    (tmp_path / "auth.ini").write_text(AUTH.format(folder=tmp_path, user=USER, password=PASSWORD))
    return tmp_path


@pytest.fixture(params=["open", "authentication"])
def address(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a server; where it asks who calls, the variables do not say it yet."""
    closed = request.param == "authentication"
    if closed and importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("MLflow's authentication is not installed: pip install 'mlflow[auth]'")
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = started(folder, ["--app-name=basic-auth"] if closed else [], port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def ingest(folder: Path, address: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Write what the server lacks; return the exit status and all that was printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["ingest", f"--runs={folder / 'runs'}", f"--mlflow-uri={address}"])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out + captured.err


@pytest.mark.faults
def test_a_team_s_server_gets_records_and_artifacts_from_who_may_write(
    folder: Path,
    address: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "authentication" in request.node.name:
        status, said = ingest(folder, address, capsys)
        assert status != 0
        assert "Traceback" not in said
        assert "401" in said or "not authenticated" in said.lower(), said
        assert len(said.splitlines()) <= 2, said
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    status, said = ingest(folder, address, capsys)
    assert (status, said.strip()) == (0, f"2 of 2 records written to {address}")
    stored = {one.record.cell_hash: one.record for one in find_records(folder / "runs")}
    runs = Tracker(Store(folder / "runs", address)).runs("tags.kind = 'cell'")
    assert {run.data.tags["cell_hash"] for run in runs} == set(stored)
    for run in runs:
        record = stored[run.data.tags["cell_hash"]]
        assert run.data.metrics["accuracy"] == pytest.approx(record.scored.mean)
        kept = list((folder / "artifacts").rglob(f"{run.info.run_id}/**/record.json"))
        assert len(kept) == 1
        assert (
            kept[0].read_bytes()
            == (folder / "runs" / "glyphs" / record.cell_hash / "record.json").read_bytes()
        )
    status, said = ingest(folder, address, capsys)
    assert (status, said.strip()) == (0, f"0 of 2 records written to {address}")
