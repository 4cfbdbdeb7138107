"""Requests to end: noticed between two steps of long work, so that what is done is saved first."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """Work ended because that was asked for, and its state is saved.

    Not an `Exception`, as Ctrl-C is none: what handles failures lets it pass.

    Args:
        signum: the signal that asked.
        kept: what was saved, in a few words; empty where nothing was under way.
    """

    def __init__(self, signum: int, kept: str = "") -> None:
        super().__init__(signum, kept)
        self.signum, self.kept = signum, kept

    @property
    def exit_status(self) -> int:
        """The status with which a process ends that this signal stopped."""
        return 128 + self.signum


class OverTime(BaseException):
    """A piece of work ended because its time was over, and its state is saved; all else goes on.

    No `Exception`, so that what handles failures lets it pass.

    Args:
        seconds: that it had.
        kept: what was saved, in a few words; empty where nothing was under way.
    """

    def __init__(self, seconds: float, kept: str = "") -> None:
        super().__init__(seconds, kept)
        self.seconds, self.kept = seconds, kept

    def __str__(self) -> str:
        kept = f"kept {self.kept}" if self.kept else "kept the last checkpoint"
        return (
            f"not finished within the time limit of {self.seconds:g} s ({kept}); run it again with "
            "a larger --time-limit to go on from there"
        )


class Stop:
    """Whether work is to end: set by a signal, or by a program, and looked at between steps."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @property
    def requested(self) -> bool:
        """Whether work is to end."""
        return self.signum is not None

    def request(self, signum: int = signal.SIGINT) -> None:
        """Ask for the end; the first signal counts."""
        self.signum = self.signum or int(signum)

    def check(self, kept: str = "") -> None:
        """Raise where the end was asked for.

        Args:
            kept: what was saved.

        Raises:
            Stopped: it was.
        """
        if self.signum is not None:
            raise Stopped(self.signum, kept)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take the first signal of `SIGNALS` inside the block as a request.

        The second one ends the process at once. Signals that are ignored stay so (`nohup`); outside
        the main thread nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.getsignal(one) for one in SIGNALS}
        taken = [one for one in SIGNALS if before[one] is not signal.SIG_IGN]
        for one in taken:
            signal.signal(one, self._handle)
        try:
            yield
        finally:
            for one in taken:
                signal.signal(one, before[one])

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            _write("\x1b[?25h" if sys.stderr.isatty() else "")  # shows the cursor again
            os._exit(128 + signum)
        self.request(signum)
        name = signal.Signals(signum).name
        _write(f"{name}: ends after the step under way; a second signal ends at once\n")


class Deadline(Stop):
    """A request to end a piece of work once its time is over, or once the end of all is asked for.

    Args:
        whole: the request to end all.
        seconds: that the work has from now on.
        clock: seconds that never go back.
    """

    def __init__(
        self, whole: Stop, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._whole, self._seconds, self._clock = whole, seconds, clock
        self._end = clock() + seconds

    @property
    def requested(self) -> bool:
        """Whether the work is to end."""
        return self._whole.requested or self._clock() >= self._end

    def check(self, kept: str = "") -> None:
        """Raise where the work is to end; see `Stop.check`.

        Raises:
            Stopped: the end of all was asked for.
            OverTime: the work's time is over.
        """
        self._whole.check(kept)
        if self.requested:
            raise OverTime(self._seconds, kept)


def _write(text: str) -> None:
    """Write to standard error from a signal handler, where buffered streams may be busy."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
