"""Plug-ins by name, through entry points."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as metadata_version
from typing import Any, Literal

from bench.errors import BenchError, unknown_name

Kind = Literal[
    "method",
    "dataset",
    "learner",
    "net",
    "calibration",
    "protocol",
    "budget",
    "suite",
    "table",
    "figure",
    "command",
]
OWN = "purer-bench"
"""The distribution that this package comes from."""


@cache
def _installed() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of all kinds, for which the files of distributions are read once."""
    found = entry_points()
    groups = [group for group in found.groups if group.startswith("purer_bench.")]
    return {group: tuple(found.select(group=group)) for group in groups}


@cache
def _entries(kind: Kind) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in _installed().get(f"purer_bench.{kind}s", ()):
        if entry.name in found and found[entry.name].value != entry.value:
            raise BenchError(
                f"{kind} '{entry.name}' is offered by both {found[entry.name].value} and "
                f"{entry.value}; names are unique: uninstall one or rename it"
            )
        found[entry.name] = entry
    return found


def offered(kind: Kind) -> Mapping[str, EntryPoint]:
    """Return the entry points of a kind by name, without loading one; much faster than `names`.

    `names` asks each for its distribution, whose metadata is parsed anew each time.
    """
    return _entries(kind)


def names(kind: Kind, distribution: str | None = None) -> list[str]:
    """Return the registered names of a kind, sorted, without importing any plug-in.

    Args:
        kind: of plug-in.
        distribution: only those that this one offers; None takes all.
    """
    found = _entries(kind)
    return sorted(n for n in found if distribution in (None, distribution_of(kind, n)[0]))


def distribution_of(kind: Kind, name: str) -> tuple[str, str]:
    """Return name and version of the distribution that offers a plug-in; empty where unknown."""
    dist = entry(kind, name).dist
    return (dist.name, dist.version) if dist else ("", "")


def entry(kind: Kind, name: str) -> EntryPoint:
    """Return the entry point of a name without loading it.

    Raises:
        BenchError: nothing of that kind carries the name.
    """
    if name not in _entries(kind):
        raise unknown_name(kind, name, names(kind))
    return _entries(kind)[name]


def own_distribution() -> tuple[str, str]:
    """Return name and version of this package's distribution."""
    return OWN, metadata_version(OWN)


def version(kind: Kind, name: str) -> int:
    """Return the version of a plug-in, 1 where it says nothing; loads it."""
    return getattr(load(kind, name), "version", 1)


@cache
def load(kind: Kind, name: str) -> Any:  # noqa: ANN401  what it is depends on the kind
    """Return the plug-in that a name stands for.

    Raises:
        BenchError: the name is unknown, or the plug-in cannot be imported.
    """
    point = entry(kind, name)
    try:
        return point.load()
    except Exception as error:
        raise BenchError(
            f"{kind} '{name}' ({point.value}) cannot be imported: {error}; "
            "repair or uninstall the package that offers it"
        ) from error
