"""Where the values of a cell's configuration come from: layers, of which a later one wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import registry
from bench.contract import Budget, Config, Learner, Method, ProtocolConstants
from bench.errors import unknown_name
from bench.suites import protocols
from bench.suites.suite import MethodEntry, Suite, Variant, validated

Overrides = Mapping[str, Mapping[str, Any]]
"""What the command line sets, by `protocol`, `budget`, method and calibration."""

Layer = tuple[str, Mapping[str, Any]]
"""What sets some values, in words, and the values by name."""

COMMAND_LINE = "--set"


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the values of all layers; of one name the last."""
    return {name: value for _, values in layers for name, value in values.items()}


def protocol_layers(suite: Suite, variant: Variant, overrides: Overrides) -> list[Layer]:
    """Return the layers of one of a suite's protocols."""
    named = protocols.protocol(variant.protocol or suite.protocol)
    return [
        (f"protocol {named.name}", named.model_dump()),
        (f"suite {suite.name}, variants", variant.set),
        (COMMAND_LINE, overrides.get("protocol", {})),
    ]


def budget_layers(suite: Suite, overrides: Overrides) -> list[Layer]:
    """Return the layers of a suite's budget; the counts of `micro` are at most those of `short`."""
    layers = _named_budget(suite, suite.budget)
    if suite.budget == "micro":
        counts, short = merged(layers), merged(_named_budget(suite, "short"))
        capped = {n: most for n, most in short.items() if _is_over(counts[n], most)}
        layers.append(("at most budget short", capped))
    return [*layers, (COMMAND_LINE, overrides.get("budget", {}))]


def _named_budget(suite: Suite, name: str) -> list[Layer]:
    return [
        (f"budget {name}", protocols.budget(name).model_dump()),
        (f"suite {suite.name}, budgets.{name}", suite.budgets.get(name, {})),
    ]


def _is_over(count: int | None, most: object) -> bool:
    return type(most) is int and (count is None or count > most)


def method_layers(
    suite: Suite,
    entry: MethodEntry,
    method: type[Method[Any]],
    learner: type[Learner],
    overrides: Overrides,
) -> list[Layer]:
    """Return the layers of a method's configuration, combined with a class of learners."""
    if entry.preset not in method.presets:
        raise unknown_name(f"preset of '{entry.method}'", entry.preset, method.presets)
    own = f"suite {suite.name}, {entry.method}"
    return [
        ("default", defaults(method.Config)),
        (f"preset {entry.preset}", method.preset_values(entry.preset, learner)),
        (f"{own}: config", entry.config),
        *((f"{own}: budgets.{name}", values) for name, values in entry.budget_layers(suite.budget)),
        (COMMAND_LINE, overrides.get(entry.method, {})),
    ]


def calibration_layers(name: str, overrides: Overrides) -> list[Layer]:
    """Return the layers of a calibration's configuration."""
    kind = registry.load("calibration", name).Config
    return [("default", defaults(kind)), (COMMAND_LINE, overrides.get(name, {}))]


def defaults(kind: type[Config]) -> dict[str, Any]:
    """Return the default of each field that has one."""
    fields = kind.model_fields.items()
    return {n: f.get_default(call_default_factory=True) for n, f in fields if not f.is_required()}


def protocol_of(suite: Suite, variant: Variant, overrides: Overrides) -> ProtocolConstants:
    """Return one of a suite's protocols."""
    values = merged(protocol_layers(suite, variant, overrides))
    return validated(ProtocolConstants, values, "protocolconstants")


def budget_of(suite: Suite, overrides: Overrides) -> Budget:
    """Return a suite's budget."""
    return validated(Budget, merged(budget_layers(suite, overrides)), "budget")


def config_of(kind: type[Config], layers: Sequence[Layer], where: str) -> dict[str, Any]:
    """Return the complete configuration that layers come to, in JSON's types."""
    return validated(kind, merged(layers), where).model_dump(mode="json")
