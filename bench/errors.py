"""Exceptions whose message is one line with the value, the rule and the remedy."""

from __future__ import annotations

import difflib
import errno
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


def counted(number: int, noun: str, form: str = "d") -> str:
    """Return a number, formatted, with a noun in the singular or plural: `1 cell`, `3 cells`."""
    return f"{number:{form}} {noun}{'s' * (number != 1)}"


_FULL = "free space there, or name a folder on another disk"
_CLOSED = "make it readable and writable, or name another"
_FAILING = "check the disk, or that the shared folder is there"
_REMEDIES = {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), _FULL),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), _CLOSED),
    **dict.fromkeys(("EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "EREMOTEIO"), _FAILING),
    **dict.fromkeys(("EMFILE", "ENFILE"), "raise the limit of open files (ulimit -n)"),
    **dict.fromkeys(("ENOENT", "ENOTDIR", "EISDIR", "ELOOP"), "name one that is there"),
}
_OF_INPUT = ("EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "ELOOP")


def file_problem(error: OSError) -> str:
    """Return the one line for an error of the operating system: the file, the cause, the remedy."""
    name = errno.errorcode.get(error.errno or 0, "")
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename or 'file'}: {reason}; {_REMEDIES.get(name, _CLOSED)}"


def is_of_storage(error: OSError) -> bool:
    """Tell whether it is a disk, file system or limit that fails, for all that comes after, too."""
    return errno.errorcode.get(error.errno or 0, "") in _REMEDIES.keys() - {"ENOENT", "EISDIR"}


def is_of_input(error: OSError) -> bool:
    """Tell whether another path or other rights mend it, as in a wrong request."""
    return errno.errorcode.get(error.errno or 0, "") in _OF_INPUT


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
