"""The type of all path options: `~` is the user's home wherever it comes from, shell or not."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bench.errors import BenchError


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return a path that a user wrote, with `~` and `~name` expanded.

    A shell expands them at the start of a word only: not in `--cache=~/x`, `NAME=~/x`, or in a
    variable that a file of settings holds.

    Raises:
        BenchError: there is no such home folder.
    """
    path = os.path.expanduser(text)  # noqa: PTH111  Path takes ./~x for a home folder
    if os.fspath(path).startswith("~"):
        raise BenchError(f"path '{path}' names a home folder that is not known; write it in full")
    return Path(path)


class UserPath(click.Path):
    """A click parameter type that gives `user_path` of what was written."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Convert a value from the command line, an environment variable or a default."""
        return super().convert(user_path(value), param, ctx)
