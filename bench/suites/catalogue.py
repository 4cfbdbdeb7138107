"""The names of everything that can be named: registered plug-ins, and what this package has."""

from __future__ import annotations

from bench import registry
from bench.suites.files import suite_names
from bench.suites.protocols import budget_names, protocol_names


def names_of(kind: registry.Kind) -> list[str]:
    """Return the names of a kind, without importing a plug-in."""
    if kind == "protocol":
        return protocol_names()
    if kind == "budget":
        return budget_names()
    return suite_names() if kind == "suite" else registry.names(kind)
