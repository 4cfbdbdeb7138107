"""A server of MLflow runs that is away, or never answers: the run goes on."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import mlflow_writer
from bench.cli.mlflow_writer import MlflowWriter
from bench.results.find import find_records
from bench.results.mlflow_store import Store

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(params=["away", "silent"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that is not there, or that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if request.param == "away":
            server.close()
        yield f"http://127.0.0.1:{port}"


def test_a_server_that_does_not_answer_stops_no_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(mlflow_writer, "LONGEST_CLOSE", 5.0)
    folder = sorted(RESULTS.glob("glyphs/*"))[0]
    shutil.copytree(folder, tmp_path / "glyphs" / folder.name)
    stored = find_records(tmp_path)
    lines: list[str] = []
    writer = MlflowWriter(Store(tmp_path, address), "glyphs", lines.append)
    writer.start()
    for one in stored:
        writer.ingest(one)
    writer.close(stored, None)
    (line,) = lines
    assert line.startswith(f"MLflow store {address} cannot be opened (")
    assert line.endswith(
        f"bench ingest --runs {tmp_path} --mlflow-uri {address} writes what is missing"
    )
    assert "\n" not in line
    assert writer.store.pending(stored) == stored
