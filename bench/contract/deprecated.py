"""Names of the version before this one, which still work, with one deprecation warning.

A module that lost names forwards them: `__getattr__ = functools.partial(old_name, __name__)`.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PLANNING = (
    "planning hooks (fit_passes, kept_passes, embedding_passes, with Passes and PlannedFit) are no "
    "longer called: bench plan estimates from measured times; delete them, they stop working in "
    "the next version"
)

OLD_NAMES = {
    "bench.contract.Passes": ("bench.contract.deprecated.Passes", PLANNING),
    "bench.contract.PlannedFit": ("bench.contract.deprecated.PlannedFit", PLANNING),
}
"""Old name → where it is now, and the warning; names with one warning share it."""

OLD_ATTRIBUTES = {"fit_passes": PLANNING, "kept_passes": PLANNING, "embedding_passes": PLANNING}
"""What classes of plug-ins used to declare → the warning."""


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


def old_name(module: str, name: str) -> Any:
    """Return what an old name of a module stands for, with a warning.

    Raises:
        AttributeError: the module never had that name.
    """
    if f"{module}.{name}" not in OLD_NAMES:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    target, warning = OLD_NAMES[f"{module}.{name}"]
    _warn_once(warning)
    home, _, attribute = target.rpartition(".")
    return getattr(importlib.import_module(home), attribute)


def warn_of_old_attributes(plug_in: type) -> None:
    """Warn where a plug-in's class declares what has gone."""
    for name in vars(plug_in).keys() & OLD_ATTRIBUTES.keys():
        _warn_once(OLD_ATTRIBUTES[name])


@functools.cache
def _warn_once(warning: str) -> None:
    warnings.warn(warning, DeprecationWarning, stacklevel=3)
