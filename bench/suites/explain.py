"""Which value of every setting is in force in a cell, and which layer it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import registry
from bench.contract import Method
from bench.errors import BenchError
from bench.suites.cell import UNCALIBRATED, Cell
from bench.suites.expand import (
    COMMAND_LINE,
    Layer,
    Overrides,
    budget_layers,
    calibration_layers,
    config_of,
    method_layers,
    protocol_layers,
    protocol_of,
)
from bench.suites.suite import MethodEntry, Suite, Variant, listed, suite_parts

OF_SUITE = (
    *("scenario", "datasets", "test_datasets", "architectures", "pool", "net"),
    *("n_way", "k_shot", "n_query", "n_test_tasks"),
)
"""Fields of a cell that a suite's own fields give."""


@dataclass(frozen=True)
class Setting:
    """One setting of a cell: its value in force, what sets it, and what that overrules.

    `overruled` are the earlier layers that set it, first to last, each with its value.
    """

    name: str
    value: Any
    origin: str
    overruled: tuple[tuple[str, Any], ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        earlier = [{"origin": origin, "value": value} for origin, value in self.overruled]
        return {"setting": self.name, "value": self.value, "from": self.origin, "over": earlier}


def explain(
    cell: Cell, suite: Suite, overrides: Overrides, settings: Sequence[str] = ()
) -> list[Setting]:
    """Return every setting of a cell in the order of reading.

    Args:
        cell: one of the suite's.
        suite: from `read_suite`.
        overrides: likewise.
        settings: what the command line set, `KEY=VALUE`.

    Raises:
        BenchError: the suite has no such cell.
    """
    part, entry, variant = _origin(cell, suite, overrides)
    method = registry.load("method", cell.method)
    learner = registry.load("learner", cell.learner)
    given = {setting.partition("=")[0] for setting in settings}
    layers = method_layers(part, entry, method, learner, overrides)
    found = [
        *_of_suite(cell, part, entry, given),
        *_listed("protocol", protocol_layers(part, variant, overrides)),
        *_listed("budget", budget_layers(part, overrides)),
        *_listed(cell.method, layers),
    ]
    if cell.calibration != UNCALIBRATED:
        found += _listed(cell.calibration, calibration_layers(cell.calibration, overrides))
    return _in_force(found, cell, method)


def _origin(cell: Cell, suite: Suite, overrides: Overrides) -> tuple[Suite, MethodEntry, Variant]:
    """Return the part, the entry and the variant of a suite that a cell comes from."""
    for part in suite_parts(suite):
        variants = [v for v in part.variants if protocol_of(part, v, overrides) == cell.protocol]
        entries = [entry for entry in part.methods if _comes_from(cell, part, entry, overrides)]
        if variants and entries and _has_pool(cell, part):
            return part, entries[0], variants[0]
    raise BenchError(f"suite '{suite.name}' has no cell {cell.label}; see bench show {suite.name}")


def _has_pool(cell: Cell, part: Suite) -> bool:
    """Tell whether a part's cells have the data sets and the teachers of a cell."""
    trained = (part.scenario, tuple(part.architectures)) == (cell.scenario, cell.architectures)
    return set(cell.datasets) <= set(part.datasets) and (trained or cell.pool is not None)


def _comes_from(cell: Cell, part: Suite, entry: MethodEntry, overrides: Overrides) -> bool:
    """Tell whether an entry of a part gives a cell its method, network, learner and settings."""
    named = (entry.method, entry.preset, entry.net or part.net)
    if named != (cell.method, cell.preset, cell.net):
        return False
    method, learner = registry.load("method", cell.method), registry.load("learner", cell.learner)
    layers = method_layers(part, entry, method, learner, overrides)
    return (
        cell.learner in listed(entry.learner or method.default_learner)
        and cell.calibration in listed(entry.calibration)
        and config_of(method.Config, layers, f"'{entry.method}'") == cell.method_config
    )


def _of_suite(cell: Cell, part: Suite, entry: MethodEntry, given: set[str]) -> Iterator[Setting]:
    """Yield the settings that the suite's own fields give, and the network of an entry."""
    for name in OF_SUITE:
        known = name in part.model_fields_set or name == "test_datasets"
        origin = f"suite {part.name}" if known else "default"
        origin = COMMAND_LINE if name in given else origin
        if name == "net" and entry.net:
            own = Setting("suite.net", cell.net, f"suite {part.name}, {entry.method}: net")
            yield _over(own, Setting("suite.net", part.net, origin))
        else:
            yield Setting(f"suite.{name}", getattr(cell, name), origin)
    yield Setting("suite.seed", cell.seed, "repetition")


def _listed(where: str, layers: Sequence[Layer]) -> list[Setting]:
    """Return the settings of some layers, each with the layers that it overrules."""
    history: dict[str, list[tuple[str, Any]]] = {}
    for origin, values in layers:
        for name, value in values.items():
            history.setdefault(name, []).append((origin, value))
    return [
        Setting(f"{where}.{name}", steps[-1][1], steps[-1][0], tuple(steps[:-1]))
        for name, steps in history.items()
        if name != "name"
    ]


def _in_force(settings: Sequence[Setting], cell: Cell, method: type[Method[Any]]) -> list[Setting]:
    """Put in place of what a method leaves open what it takes instead.

    A setting that is None takes the constant of the protocol, or the count of the budget, of its
    name; a method may derive others. A constant that a method's own setting replaces is marked.
    """
    config = method.Config.model_validate(cell.method_config)
    derived = method.in_force(config, cell.shape, cell.budget, cell.protocol)
    known = {setting.name: setting for setting in settings}
    replaced = {
        name
        for name in cell.method_config
        if cell.method_config[name] is not None and f"protocol.{name}" in known
    }
    found = []
    for setting in settings:
        where, _, name = setting.name.partition(".")
        if where == cell.method:
            setting = _of_method(setting, name, derived, known)
        elif where == "protocol" and name in replaced:
            own = Setting(setting.name, None, f"replaced by {cell.method}.{name}")
            setting = _over(own, setting)
        found.append(setting)
    return found


def _of_method(
    setting: Setting, name: str, derived: Mapping[str, Any], known: Mapping[str, Setting]
) -> Setting:
    if name in derived and derived[name] != setting.value:
        return _over(Setting(setting.name, derived[name], "derived by the method"), setting)
    if setting.value is None:
        for room in ("protocol", "budget"):
            if other := known.get(f"{room}.{name}"):
                found = Setting(setting.name, other.value, f"{room}.{name} ({other.origin})")
                return _over(found, setting)
    return setting


def _over(setting: Setting, earlier: Setting) -> Setting:
    """Return a setting that overrules another and all that it overrules."""
    steps = (*earlier.overruled, (earlier.origin, earlier.value))
    return Setting(setting.name, setting.value, setting.origin, steps)
