"""Requests to end: by signals, noticed between steps, and while a lock is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from bench.stops import SIGNALS, Stop, Stopped

pytestmark = pytest.mark.usefixtures("heard")
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138}


def test_nothing_is_raised_before_a_request() -> None:
    stop = Stop()
    stop.check()
    assert not stop.requested


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_is_a_request_and_the_old_handler_comes_back(name: str) -> None:
    stop, number = Stop(), getattr(signal, name)
    before = signal.getsignal(number)
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Stopped) as caught:
            stop.check("all")
    assert caught.value.exit_status == STATUS[name]
    assert caught.value.kept == "all"
    assert signal.getsignal(number) is before
    assert number in SIGNALS


def test_the_first_signal_counts() -> None:
    stop = Stop()
    stop.request(signal.SIGTERM)
    stop.request(signal.SIGINT)
    assert stop.signum == signal.SIGTERM


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\n"
        "from bench.stops import Stop\n"
        "with Stop().on_signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "goes on\n")
    assert done.stderr == "SIGTERM: ends after the step under way; a second signal ends at once\n"


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Stop().on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
