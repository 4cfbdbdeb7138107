"""Conformance checks of one plug-in: what a check is, and how checks are run."""

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
"""Takes the subject of a plug-in, returns a remark or None, and raises `CheckFailed` or `Skip`. The
first line of its docstring states the requirement."""

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
"""The module that holds the checks of each kind, in `SUBJECTS` and `CHECKS`."""


class CheckFailed(Exception):
    """A plug-in does not meet a requirement; the message says what was observed."""


def require(condition: object, message: str) -> None:
    """Raise `CheckFailed` with a message unless a condition holds."""
    if not condition:
        raise CheckFailed(message)


@dataclass(frozen=True)
class Result:
    """The result of one check; `detail` is the reason of a failure or of a skip, or a remark."""

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
    """Return the subject of a plug-in: what all its checks use, for example its fits."""
    return import_module(MODULES[kind]).SUBJECTS[kind](name, **options)


subject_of = functools.cache(make_subject)
"""The same, made once per process."""


def text_of(check: Check) -> str:
    """Return the requirement of a check, in one line."""
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
    """Run one check and return its result; an exception of the plug-in is a failure."""
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
