"""Commands in processes of their own, which start with the libraries loaded where that can be."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

MAIN = "from bench.cli.main import main; main()"
LOOK_EVERY = 0.01


class Process:
    """A process that runs code as `python -c CODE WORDS…` does, with the libraries loaded already.

    With `fresh`, nothing of the project is loaded: other code is to run, or imports are looked at.
    It offers what `subprocess.Popen` does: `pid`, `poll`, `wait`, `send_signal`, `communicate`,
    `kill`. Its output goes to files.
    """

    def __init__(
        self,
        words: Sequence[str],
        code: str = MAIN,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        warn: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        self.args = [sys.executable, "-c", code, *words]
        self._folder = Path(tempfile.mkdtemp(prefix="process-", dir=_server_folder()))
        order = {
            "code": code,
            "words": list(words),
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "folder": str(self._folder),
            "warnings": list(warn),
            "fresh": fresh,
        }
        server = _server()
        assert server.stdin is not None
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._number("pid", 60)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        path = self._folder / "status"
        return int(path.read_text()) if path.exists() else None

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end; return the exit status."""
        return self._number("status", timeout)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end; return what was printed, and on standard error."""
        self.wait(timeout)
        out, err = (
            (self._folder / name).read_bytes().decode("utf-8", "replace")
            for name in ("stdout", "stderr")
        )
        return out, err

    def send_signal(self, signum: int) -> None:
        """Send a signal."""
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it at once where it still runs."""
        if self.poll() is None:
            self.send_signal(9)

    def _number(self, name: str, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while not (path := self._folder / name).exists():
            assert _server().poll() is None, "the server of processes ended"
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(LOOK_EVERY)
        return int(path.read_text())


def run(
    words: Sequence[str],
    code: str = MAIN,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    warn: Sequence[str] = (),
    timeout: float = 300,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c CODE WORDS…` does, to its end."""
    process = Process(words, code, env, cwd, warn, fresh)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


@functools.cache
def _server_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bench-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _end(server: subprocess.Popen[str]) -> None:
    """End the server, which reads orders until there can be no more."""
    with server:
        assert server.stdin is not None
        server.stdin.close()


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the server of this process, which ends with it."""
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    yielding = {"OMP_WAIT_POLICY": "passive"}  # else threads without work keep a core busy
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **single, **yielding, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert server.stdout is not None
    atexit.register(_end, server)
    threads = server.stdout.readline()
    assert threads == "\n", f"a process with threads must not be forked: {threads}"
    return server
