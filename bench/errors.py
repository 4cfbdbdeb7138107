"""Exceptions whose message is one line with the value, the rule and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """An error in the input or the environment; shown as one line, without a traceback."""


class BrokenOff(BenchError):
    """What a run needs went away after it had begun: what is finished is kept; exit status 1."""


class Skip(Exception):
    """The method cannot run this cell: it is recorded as skipped with this reason, not failed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """Return the error for an unknown name, with near matches first.

    Args:
        kind: what was looked up, in the singular ("method", "suite", …).
        name: the name as the user wrote it.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return BenchError(f"unknown {kind} '{name}'; {hint}")
