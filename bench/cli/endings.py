"""How a command ends: each exception becomes one line and the documented exit status."""

from __future__ import annotations

import click

from bench.errors import BenchError, BrokenOff
from bench.stops import Stopped

UNEXPECTED = 1
REFUSED = 2
INTERRUPTED = 130
Interrupted = (KeyboardInterrupt, click.Abort)
"""Raised by Ctrl-C; needs no line of its own."""


def exit_status(error: BaseException) -> int:
    """Return the exit status of a command that ended with this exception."""
    cause = error.__cause__ if isinstance(error, click.Abort) else error
    if isinstance(cause, Stopped):  # click raises its own exception from it
        return cause.exit_status
    if isinstance(error, Interrupted):
        return INTERRUPTED
    if isinstance(error, BrokenOff):
        return UNEXPECTED
    return REFUSED if isinstance(error, (BenchError, click.ClickException, OSError)) else UNEXPECTED


def error_line(error: Exception) -> str:
    """Return the one line that a user reads instead of a traceback."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, BenchError):
        text = str(error)
    elif isinstance(error, OSError):
        text = (
            f"{error.filename or 'file'}: {error.strerror or error}; "
            "make it readable and writable, or name another"
        )
    else:
        first = next((line for line in str(error).splitlines() if line.strip()), "no message")
        text = f"{type(error).__name__}: {first}; run again with --debug for the traceback"
    return f"Error: {' '.join(text.split())}"
