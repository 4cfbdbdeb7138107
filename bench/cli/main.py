"""The command line: verbs are imported when they are called, or for the list of `--help`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

from bench import __version__
from bench.cli.endings import Interrupted, error_line, exit_status, is_interruption
from bench.cli.streams import accept_all_characters
from bench.errors import unknown_name
from bench.paths import give_home

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
