"""The command line: verbs are imported when they are called, or for the list of `--help`.

Each exception becomes one line and the documented exit status. Output may have any encoding:
characters that it lacks are replaced and raise no error.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import click

from bench import __version__
from bench.errors import BenchError, BrokenOff, file_problem, is_of_input, unknown_name
from bench.paths import give_home
from bench.stops import Stopped

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises, from 8.2 on, for a group without a command."""
_VERBS = {
    "archive": "bench.cli.submit:archive",
    "check": "bench.cli.check:check",
    "data": "bench.cli.data:data",
    "doctor": "bench.cli.doctor:doctor",
    "export": "bench.cli.export:export",
    "ingest": "bench.cli.ingest:ingest",
    "list": "bench.cli.listing:list_names",
    "plan": "bench.cli.run:plan",
    "reproduce": "bench.cli.reproduce:reproduce",
    "run": "bench.cli.run:run",
    "show": "bench.cli.showing:show",
    "status": "bench.cli.status:status",
    "submit": "bench.cli.submit:submit",
    "teachers": "bench.cli.teachers:teachers",
    "verify": "bench.cli.verify:verify",
}

UNEXPECTED = 1
REFUSED = 2
INTERRUPTED = 130
Interrupted = (KeyboardInterrupt, click.Abort)
"""Raised by Ctrl-C; needs no line of its own."""
HANDLER = "purer_bench.similar"
_SIMILAR = {"–": "-", "—": "-", "−": "-", "─": "-", "×": "x", "·": "*", "…": ".", "→": ">"}
_SIMILAR |= {"“": '"', "”": '"', "±": "~", "†": "+", "≈": "=", "≤": "<", "≥": ">"}
"""One character for each, so that the columns of a table stay in line."""


class _Group(click.Group):
    """Built-in commands, and those that packages offer through entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return sorted({*_VERBS, *(point.name for point in _offered())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb; None where there is none of that name."""
        if cmd_name in _VERBS:
            module, _, attribute = _VERBS[cmd_name].partition(":")
            return getattr(import_module(module), attribute)
        return next((point.load() for point in _offered() if point.name == cmd_name), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the arguments name, or raise with near matches."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


def _offered() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group="purer_bench.commands"))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bench")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Benchmark of data-free meta-learning from pools of pre-trained classifiers."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line, and the exit status is the documented one.

    0 done; 1 a cell failed, a check found something, a disk failed, or an error that no input
    explains; 2 the request is wrong; 130 Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    accept_all_characters()
    give_home()
    try:
        status = cli.main(
            args=[word for word in words if word != "--debug"],
            prog_name="bench",
            standalone_mode=False,
        )
    except _NO_ARGUMENTS as error:
        error.show()
        sys.exit(error.exit_code)
    except (Exception, *Interrupted) as error:
        if debug:
            raise
        if not is_interruption(error):
            click.echo(error_line(error), err=True)
        sys.exit(exit_status(error))
    sys.exit(status if isinstance(status, int) else 0)


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


def similar_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by a similar ASCII character, else by `?`.

    An error handler as `codecs.register_error` takes it.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_similar, error.object[error.start : error.end])), error.end


def _similar(character: str) -> str:
    base = unicodedata.normalize("NFKD", character)[0]
    return _SIMILAR.get(character, base if base.isascii() else "?")


def accept_all_characters() -> None:
    """Let standard output and error print any text, whatever encoding the terminal has."""
    codecs.register_error(HANDLER, similar_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


class _Lasting(io.FileIO):
    """A file descriptor to which anything can be written after its reader is gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                click.echo("standard output is closed; the work goes on without it", err=True)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_reader() -> None:
    """Let work go on where what reads its output ends, as `head` does."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return
    stream.flush()
    raw = _Lasting(stream.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, HANDLER, line_buffering=True
    )
