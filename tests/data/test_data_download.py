"""Downloads from a server on this machine: complete and right, or not there at all."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data.base import Download
from bench.data.download import fetch, fetch_missing
from bench.data.sets.cub import Cub
from bench.data.sets.mini_imagenet import MiniImagenet
from bench.errors import BenchError

CONTENT = bytes(range(256)) * 8000
DIGEST = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as good and bad servers do."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/status":
            self.wfile.write(b"SSH-2.0-server\r\n")
            return
        if self.path == "/chunked":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + CONTENT[:100])
            self.close_connection = True
            return
        page = b"\n <!DOCTYPE html><title>Quota exceeded</title>" * 50
        body = page if self.path == "/page" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_the_right_file_arrives(server: str, tmp_path: Path) -> None:
    calls = []
    download = Download("set.tgz", f"{server}/file", DIGEST)
    target = tmp_path / "data" / "set.tgz"
    assert fetch(download, target, lambda *call: calls.append(call)) == target
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["set.tgz"]
    assert calls[-1] == (len(CONTENT), len(CONTENT), "set.tgz")


@pytest.mark.parametrize(
    ("path", "digest", "expected"),
    [
        ("/page", DIGEST, "answered with a web page"),
        ("/missing", DIGEST, "could not be downloaded .*Not Found"),
        ("/status", DIGEST, "could not be downloaded .*SSH"),
        ("/chunked", DIGEST, "could not be downloaded .*(IncompleteRead|InvalidChunkLength)"),
        ("/broken", DIGEST, "could not be downloaded .*Incomplete"),
        ("/file", "md5:" + "0" * 32, "not the published one; .* expected md5:0000"),
        ("/file", "sha256:" + "0" * 64, "not the published one; .* expected sha256:0000"),
    ],
)
def test_anything_else_leaves_nothing(
    server: str, tmp_path: Path, path: str, digest: str, expected: str
) -> None:
    with pytest.raises(BenchError, match=expected) as caught:
        fetch(Download("set.tgz", server + path, digest), tmp_path / "set.tgz")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_survives_a_failure(server: str, tmp_path: Path) -> None:
    (tmp_path / "set.tgz").write_bytes(b"earlier")
    with pytest.raises(BenchError):
        fetch(Download("set.tgz", f"{server}/page", DIGEST), tmp_path / "set.tgz")
    assert (tmp_path / "set.tgz").read_bytes() == b"earlier"


def test_no_server(tmp_path: Path) -> None:
    download = Download("set.tgz", "http://127.0.0.1:9/file", DIGEST)
    with pytest.raises(BenchError, match="fetch it by hand"):
        fetch(download, tmp_path / "set.tgz")


def test_only_what_is_missing_is_fetched(server: str, tmp_path: Path) -> None:
    files = (
        Download("cub/a.tgz", f"{server}/file", DIGEST),
        Download("cub/b.mat", f"{server}/page", DIGEST),
    )
    source = type("Served", (Cub,), {"downloads": files})()
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub" / "b.mat").write_bytes(b"here")
    assert fetch_missing(source, tmp_path) == [tmp_path / "cub" / "a.tgz"]
    with pytest.raises(BenchError, match=r"image-net\.org"):
        fetch_missing(MiniImagenet(), tmp_path)
