"""What a conformance check is, and running those of one plug-in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

from bench import registry
from bench.errors import BenchError, Skip

Outcome = Literal["ok", "failed", "skipped"]
Check = Callable[[Any], str | None]
"""What a plug-in is tried with → what is worth saying of it. Raises `CheckFailed` or `Skip`; the
first line of its docstring says what it asks of a plug-in."""

MODULES: dict[registry.Kind, str] = {
    "method": "bench.testing.methods",
    "learner": "bench.testing.learners",
    "net": "bench.testing.nets",
    "dataset": "bench.testing.datasets",
    "calibration": "bench.testing.calibrations",
    "protocol": "bench.testing.suites",
    "budget": "bench.testing.suites",
    "suite": "bench.testing.suites",
}
"""Kinds that are checked → the module of their checks: `SUBJECTS` and `CHECKS`, by kind."""


class CheckFailed(Exception):
    """A plug-in does not do what a check asks; the message says what was seen."""


def require(condition: object, message: str) -> None:
    """Raise `CheckFailed` with a message unless a condition holds."""
    if not condition:
        raise CheckFailed(message)


@dataclass(frozen=True)
class Result:
    """How one check of one plug-in went; `detail` says why it failed or was skipped, or more."""

    kind: str
    name: str
    check: str
    outcome: Outcome
    detail: str = ""

    def row(self) -> dict[str, str]:
        """Return the result as plain values."""
        return asdict(self)


def checks_of(kind: registry.Kind) -> tuple[Check, ...]:
    """Return the checks of a kind of plug-in, in their order."""
    return import_module(MODULES[kind]).CHECKS[kind]


def make_subject(kind: registry.Kind, name: str, **options: Any) -> object:
    """Return what the checks of a plug-in share, such as its fits."""
    return import_module(MODULES[kind]).SUBJECTS[kind](name, **options)


subject_of = functools.cache(make_subject)
"""The same, one for each process."""


def text_of(check: Check) -> str:
    """Return what a check asks, in one line."""
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def run_checks(kind: registry.Kind, name: str, **options: Any) -> Iterator[Result]:
    """Run the checks of a plug-in one after another.

    Args:
        kind: of plug-in.
        name: its registered name.
        options: of its subject: `net`, `settings` of methods, `places` of data sets.
    """
    try:
        subject = make_subject(kind, name, **options)
    except Exception as error:
        yield Result(kind, name, "can be loaded", "failed", _line(error))
        return
    for check in checks_of(kind):
        yield run_check(kind, name, check, subject)


def run_check(kind: registry.Kind, name: str, check: Check, subject: object) -> Result:
    """Run one check and say how it went; nothing that a plug-in raises gets through."""
    try:
        detail = check(subject) or ""
        outcome: Outcome = "ok"
    except Skip as skip:
        outcome, detail = "skipped", str(skip)
    except Exception as error:
        outcome, detail = "failed", _line(error)
    return Result(kind, name, text_of(check), outcome, " ".join(detail.split()))


def _line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    plain = isinstance(error, CheckFailed | BenchError)
    return text if plain else f"{type(error).__name__}: {text}"
