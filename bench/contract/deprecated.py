"""Names of the version before this one, which still work, with one deprecation warning.

A module that lost names forwards them from its `__getattr__`; it imports this one only then.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ADVICE = (
    "a plug-in uses what the contract no longer has, which works for this version only: planning "
    "hooks (fit_passes, kept_passes, embedding_passes, with Passes and PlannedFit) are not called, "
    "since bench plan estimates from measured times: delete them; a tuple `learners` of names is "
    "now the class `learner_needs` and the name `default_learner`"
)

OLD_NAMES = {
    "bench.contract.Passes": "bench.contract.deprecated.Passes",
    "bench.contract.PlannedFit": "bench.contract.deprecated.PlannedFit",
}
"""Old name → where it is now."""


@dataclass(frozen=True)
class Passes:
    """What `fit_passes` returned: forward passes per teacher, and of the meta-model."""

    teachers: Sequence[float]
    net: float = 0.0


@dataclass(frozen=True)
class PlannedFit:
    """What `fit_passes` was given: the part of `FitContext` that is known before a run."""

    teachers: Sequence[Any]
    net: Any
    shape: Any
    config: Any
    budget: Any
    protocol: Any


def old_name(module: str, name: str) -> object:
    """Return the object that an old name of a module stands for, with a warning.

    Raises:
        AttributeError: the module never had that name.
    """
    if f"{module}.{name}" not in OLD_NAMES:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    warn_once()
    home, _, attribute = OLD_NAMES[f"{module}.{name}"].rpartition(".")
    return getattr(importlib.import_module(home), attribute)


@functools.cache
def warn_once() -> None:
    """Warn that a plug-in uses what the contract no longer has."""
    warnings.warn(ADVICE, DeprecationWarning, stacklevel=3)
