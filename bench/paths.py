"""Paths of users: `~` is the home folder wherever it comes from, shell or not; and the defaults."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path

import click

from bench.errors import BenchError

DATA_VARIABLE = "PURER_BENCH_DATA"
"""The environment variable that names the folder of all data sets."""


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


_NO_HOME = "purer-bench-no-home-"


def default_cache() -> Path:
    """Return the cache folder where the user names none.

    Raises:
        BenchError: the user has no home folder.
    """
    for variable, inner in (("PURER_BENCH_CACHE", ""), ("XDG_CACHE_HOME", "purer-bench")):
        if os.environ.get(variable):
            return user_path(os.environ[variable]) / inner
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is None or home.name.startswith(_NO_HOME):
        raise BenchError(
            "this user has no home folder, so there is no default cache folder; name one with "
            "--cache DIR or PURER_BENCH_CACHE, or set HOME"
        )
    return home / ".cache" / "purer-bench"


def give_home() -> None:
    """Name a home folder and a user in the environment where the system knows none.

    Libraries ask for both, if only to look for settings. The folder lasts as long as the process.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix=_NO_HOME)
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"


def default_data_dir() -> Path | None:
    """Return `$PURER_BENCH_DATA`, the folder of all data sets; None where it is not set."""
    named = os.environ.get(DATA_VARIABLE)
    return user_path(named) if named else None


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
