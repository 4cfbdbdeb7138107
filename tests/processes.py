"""Commands in processes of their own, which start with the libraries loaded where that can be.

The processes of pytest-xdist share one server (`tests/fork_server.py`): it takes its orders from a
named pipe, and ends when nobody is left who could write into that.
"""

from __future__ import annotations

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

import psutil
from filelock import FileLock

PLACE = "PURER_BENCH_TESTS_SERVER"
"""Names the folder of the server in the environment of the processes that share it."""
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
        self._folder = Path(tempfile.mkdtemp(prefix="process-", dir=os.environ[PLACE]))
        order = {
            "code": code,
            "words": list(words),
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "folder": str(self._folder),
            "warnings": list(warn),
            "fresh": fresh,
        }
        (self._folder / "order").write_text(json.dumps(order), encoding="utf-8")
        self._server = _server()
        os.write(_pipe(), f"{self._folder}\n".encode())  # short enough to go in at once

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._number("pid", 300)

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
            assert _lives(self._server), "the server of processes ended"
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


def open_place() -> int | None:
    """Make the folder of the server, unless another process has; return the open end of its pipe.

    The server is started by who first wants a process.
    """
    if PLACE in os.environ:
        return None
    folder = Path(tempfile.mkdtemp(prefix="bench-tests-"))
    os.mkfifo(folder / "orders")
    os.environ[PLACE] = str(folder)
    return os.open(folder / "orders", os.O_RDWR)


def close_place(pipe: int) -> None:
    """Let the server end, and remove its folder."""
    os.close(pipe)
    shutil.rmtree(os.environ.pop(PLACE), ignore_errors=True)


@functools.cache
def _pipe() -> int:
    return os.open(Path(os.environ[PLACE]) / "orders", os.O_RDWR)


@functools.cache
def _server() -> int:
    """Return the number of the server, started if there is none."""
    folder = Path(os.environ[PLACE])
    known = folder / "server"
    with FileLock(folder / "lock"):
        if not known.exists():
            known.write_text(str(_started(folder / "orders")))
    return int(known.read_text())


def _started(orders: Path) -> int:
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    yielding = {"OMP_WAIT_POLICY": "passive"}  # else threads without work keep a core busy
    environment = {**os.environ, **single, **yielding, "MLFLOW_DISABLE_TELEMETRY": "true"}
    code = str(Path(__file__).with_name("fork_server.py"))
    with orders.open("rb", buffering=0) as pipe:
        words, standard = [sys.executable, code], [(os.POSIX_SPAWN_DUP2, pipe.fileno(), 0)]
        return os.posix_spawn(sys.executable, words, environment, file_actions=standard)


def _lives(server: int) -> bool:
    try:
        return psutil.Process(server).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
