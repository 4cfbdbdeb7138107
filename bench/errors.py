"""Exceptions whose message is a single line: the value, the rule, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake in the input or the surroundings; shown as one line, without a traceback."""


class Skip(Exception):
    """The cell cannot be served: it is recorded as skipped, not failed. The message says why."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """Return the error for a name that nothing carries, with near matches first.

    Args:
        kind: what was looked up, in the singular ("method", "suite", …).
        name: the name as the user wrote it.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return BenchError(f"unknown {kind} '{name}'; {hint}")
