"""How a command ends: each exception becomes one line and the documented exit status."""

from __future__ import annotations

import click

from bench.errors import BenchError, BrokenOff, file_problem, is_of_input
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
    if is_interruption(error):
        return INTERRUPTED
    if isinstance(error, OSError):
        return REFUSED if is_of_input(error) else UNEXPECTED
    refused = isinstance(error, (BenchError, click.ClickException))
    return REFUSED if refused and not isinstance(error, BrokenOff) else UNEXPECTED


def is_interruption(error: BaseException) -> bool:
    """Tell whether the user ended the command; click takes a file that ends early for that, too."""
    return isinstance(error, Interrupted) and not isinstance(error.__cause__, EOFError)


def error_line(error: BaseException) -> str:
    """Return the one line that a user reads instead of a traceback."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, BenchError):
        text = str(error)
    elif isinstance(error, OSError):
        text = file_problem(error)
    else:
        shown = error.__cause__ if isinstance(error, click.Abort) else error
        first = next((line for line in str(shown).splitlines() if line.strip()), "no message")
        text = f"{type(shown).__name__}: {first}; run again with --debug for the traceback"
    return f"Error: {' '.join(text.split())}"
