"""Checkpoints of long work: written by the clock, each under the digest of its content.

A checkpoint is a file `checkpoint-<number>-<digest>.pt`, as `torch.save` writes it. The last two
are kept; one whose content does not have the digest of its name is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results.files import atomic_path
from bench.results.maker import Judge
from bench.stops import Stop

INTERVAL = 120.0
"""Seconds between two checkpoints unless the user says otherwise."""
MOST_OF_THE_TIME = 0.02
"""Share of the time that checkpoints may take; where writing is slow there are fewer."""
KEPT = 2


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class Keeping:
    """How long work is kept, and ended.

    `every`: least seconds between two checkpoints; 0 writes one whenever it can be.
    `stop`: asks for the end.
    `say`: gets a line that the user should see.
    """

    every: float = INTERVAL
    stop: Stop = field(default_factory=Stop)
    say: Callable[[str], None] = _silent


class Checkpoints:
    """The last checkpoints of one piece of work.

    Args:
        folder: where they lie; made when the first is written.
        what: the work, in words, for lines.
        keeping: how often, and whether to end.
        judge: decides whether a state is gone on from, by who made it.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        keeping: Keeping,
        judge: Judge = Judge(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._what, self._keeping = folder, what, keeping
        self._judge, self._clock = judge, clock
        self.doubt: str | None = None
        """how the state that was loaded was made otherwise than it would be now, where it was"""
        self._number = 0
        self._last = self._asked = clock()
        self._interval = keeping.every
        self._gap = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, on the CPU; None where there is none."""
        for path in reversed(self._paths()):
            content = self._read(path)
            if content is not None:
                return content["state"]
        return None

    def due(self) -> bool:
        """Tell whether it is time for a checkpoint, or for the end.

        It is time as well if the next chance, judged by the last ones, would come too late.
        """
        before, self._asked = self._asked, self._clock()
        self._gap = max(self._asked - before, 0.9 * self._gap)
        age = self._asked - self._last
        late = age >= self._interval or age + self._gap > self._interval
        return self._keeping.stop.requested or late

    def write(self, state: dict[str, Any], at: str) -> None:
        """Write a checkpoint, delete all but the last two, and end where that is asked for.

        Args:
            state: nested dicts, lists, numbers, strings and tensors.
            at: how far the work is, in words.

        Raises:
            Stopped: the end was asked for.
        """
        import torch

        buffer = io.BytesIO()
        torch.save({"state": state, "made_by": self._judge.stamp(), "at": at}, buffer)
        payload = buffer.getvalue()
        self._number = max([self._number, *map(_number, self._paths())]) + 1
        with atomic_path(self._folder / _name(self._number, payload)) as temporary:
            temporary.write_bytes(payload)
        for path in self._paths()[:-KEPT]:
            path.unlink(missing_ok=True)
        self._last = self._clock()
        if self._keeping.every > 0:
            cost = self._last - self._asked
            self._interval = max(self._keeping.every, cost / MOST_OF_THE_TIME)
        self._keeping.stop.check(f"{self._what}, {at}")

    def clear(self) -> None:
        """Delete all: the work is done, or goes no further."""
        for path in (*self._paths(), *self._folder.glob(".checkpoint-*")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files lie there, or it never was
            self._folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.pt"))

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return a checkpoint's content; None, and a line, where it is no use."""
        import torch

        payload = path.read_bytes()
        if path.name != _name(_number(path), payload):
            self._keeping.say(
                f"{self._what}: {path.name} is damaged (its content has another digest); taking "
                "the one before, or starting again"
            )
            return None
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        doubt = self._judge.doubt(content["made_by"] or {}, "", "this checkpoint")
        if doubt and not self._judge.trust:
            self._keeping.say(f"{self._what}: {doubt}; {path.name} is not gone on from")
            return None
        self.doubt = doubt
        return content


def _name(number: int, payload: bytes) -> str:
    return f"checkpoint-{number:08d}-{hashlib.sha256(payload).hexdigest()}.pt"


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])
