"""Start-up: what a user waits for before anything happens."""

from __future__ import annotations

import subprocess
import sys


def test_help(benchmark) -> None:
    """`bench --help` in a fresh process; compare with the bare interpreter below."""
    command = [sys.executable, "-c", "from bench.cli.main import main; main()", "--help"]
    quiet = {"check": True, "capture_output": True}
    benchmark.pedantic(subprocess.run, (command,), quiet, rounds=5, warmup_rounds=1)


def test_bare_interpreter(benchmark) -> None:
    """The floor of the above."""
    command = [sys.executable, "-c", "pass"]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=5, warmup_rounds=1)
