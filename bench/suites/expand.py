"""Expansion of a suite into its cells.

The values of a cell's configuration come from layers, of which a later one wins.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.contract import Budget, Config, Learner, Method, ProtocolConstants
from bench.data.sources import check_name
from bench.errors import BenchError, unknown_name
from bench.nets.build import check_net
from bench.suites import protocols
from bench.suites.cell import UNCALIBRATED, Cell
from bench.suites.suite import MethodEntry, Suite, Variant, listed, suite_parts, validated

Overrides = Mapping[str, Mapping[str, Any]]
"""What the command line sets, by `protocol`, `budget`, method and calibration."""

Layer = tuple[str, Mapping[str, Any]]
"""What sets some values, in words, and the values by name."""

COMMAND_LINE = "--set"


def expand(
    suite: Suite,
    overrides: Overrides,
    seeds: int | None = None,
    dataset_dirs: Mapping[str, Path] = {},
    methods: Collection[str] = (),
) -> list[Cell]:
    """Return the cells of a suite in the order in which they run.

    Methods follow one another within a data set, seed and variant of the protocol, shots within a
    method, so that pools, fits and embeddings are made once. Cells that come to the same run once.

    Args:
        suite: from `read_suite`.
        overrides: likewise.
        seeds: repetitions; None takes the suite's.
        dataset_dirs: where users' own data sets are, by name.
        methods: those whose cells are wanted, others are not imported; empty: all.

    Raises:
        BenchError: an unknown name, a value that may not be, or parts that do not go together.
    """
    found = {
        cell.model_dump_json(): cell
        for part in suite_parts(suite)
        for cell in _expand_part(part, overrides, seeds or suite.seeds, dataset_dirs, methods)
    }
    cells = list(found.values())
    _check_counts(cells)
    return cells


def _expand_part(
    suite: Suite,
    overrides: Overrides,
    seeds: int,
    dataset_dirs: Mapping[str, Path],
    methods: Collection[str],
) -> list[Cell]:
    variants = _variants(suite, overrides)
    budget = budget_of(suite, overrides)
    for named in (suite.budgets, *(entry.budgets for entry in suite.methods)):
        for name in named:
            protocols.budget(name)  # refuses a name that is none
    own = [entry.net for entry in suite.methods if entry.net]
    for architecture in dict.fromkeys([*suite.architectures, suite.net, *own]):
        check_net(architecture)
    for dataset in suite.datasets:
        check_name(dataset, dataset_dirs)
    cells = []
    entries = [entry for entry in suite.methods if not methods or entry.method in methods]
    for seed, datasets, protocol, entry in itertools.product(
        range(seeds), _groups(suite), variants, entries
    ):
        method = registry.load("method", entry.method)
        learners = _learners(method, entry)
        configs = {one: _method_config(suite, entry, method, one, overrides) for one in learners}
        calibrations = _calibrations(entry, learners, overrides)
        for learner, k_shot, calibration, tested in itertools.product(
            learners, suite.k_shot, calibrations, _tested(datasets)
        ):
            cells.append(
                validated(
                    Cell,
                    {
                        "scenario": suite.scenario,
                        "datasets": datasets,
                        "test_datasets": tested,
                        "architectures": tuple(suite.architectures),
                        "net": entry.net or suite.net,
                        "method": entry.method,
                        "preset": entry.preset,
                        "method_config": configs[learner],
                        "learner": learner,
                        "calibration": calibration,
                        "calibration_config": calibrations[calibration],
                        "n_way": suite.n_way,
                        "k_shot": k_shot,
                        "n_query": suite.n_query,
                        "n_test_tasks": suite.n_test_tasks,
                        "protocol": protocol,
                        "budget": budget,
                        "seed": seed,
                    },
                    f"suite '{suite.name}'",
                )
            )
    return cells


def _groups(suite: Suite) -> list[tuple[str, ...]]:
    """Return the data sets of each pool: all together in MH, one by one otherwise."""
    if suite.scenario == "MH":
        return [tuple(suite.datasets)]
    return [(name,) for name in suite.datasets]


def _tested(datasets: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return which test tasks are scored: those of each data set, and of all together."""
    return [()] if len(datasets) == 1 else [*((name,) for name in datasets), ()]


def _variants(suite: Suite, overrides: Overrides) -> list[ProtocolConstants]:
    """Return the distinct protocols of a suite; what the command line sets holds for all."""
    found: list[ProtocolConstants] = []
    for variant in suite.variants:
        constants = protocol_of(suite, variant, overrides)
        if constants not in found:
            found.append(constants)
    return found


def _learners(method: type[Method[Any]], entry: MethodEntry) -> list[str]:
    chosen = listed(entry.learner or method.default_learner)
    for name in chosen:
        if reason := method.refuse_learner(name, registry.load("learner", name)):
            raise BenchError(
                f"method '{entry.method}' does not go with learner '{name}': {reason}; "
                f"use {', '.join(serving_learners(method))}"
            )
    return chosen


def serving_learners(method: type[Method[Any]]) -> list[str]:
    """Return the registered learners that a method can be combined with, its default first."""
    names = sorted(registry.names("learner"), key=lambda name: name != method.default_learner)
    return [n for n in names if method.refuse_learner(n, registry.load("learner", n)) is None]


def _calibrations(
    entry: MethodEntry, learners: Sequence[str], overrides: Overrides
) -> dict[str, dict[str, Any]]:
    """Return the complete configuration of each calibration of an entry, by name."""
    configs: dict[str, dict[str, Any]] = {}
    for name in listed(entry.calibration):
        if name == UNCALIBRATED:
            configs[name] = {}
            continue
        if name not in registry.names("calibration"):
            raise unknown_name("calibration", name, [UNCALIBRATED, *registry.names("calibration")])
        calibration = registry.load("calibration", name)
        for learner in learners:
            reason = calibration.refuse(registry.load("learner", learner))
            if reason:
                raise BenchError(
                    f"calibration '{name}' does not go with learner '{learner}' of method "
                    f"'{entry.method}': {reason}"
                )
        layers = calibration_layers(name, overrides)
        configs[name] = config_of(calibration.Config, layers, f"'{name}'")
    return configs


def _method_config(
    suite: Suite, entry: MethodEntry, method: type[Method[Any]], learner: str, overrides: Overrides
) -> dict[str, Any]:
    kind = registry.load("learner", learner)
    layers = method_layers(suite, entry, method, kind, overrides)
    return config_of(method.Config, layers, f"'{entry.method}'")


def _check_counts(cells: Sequence[Cell]) -> None:
    for cell in cells:
        for name, low in (("n_way", 2), ("k_shot", 1), ("n_query", 1), ("n_test_tasks", 1)):
            if getattr(cell, name) < low:
                raise BenchError(f"{name} = {getattr(cell, name)}; it must be at least {low}")


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


def told_apart(cells: Sequence[Cell]) -> list[Cell]:
    """Return a suite's cells; those of one label with the settings in which they differ."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        alike.setdefault(cell.label, []).append(_settings(cell))
    told = []
    for cell in cells:
        others, own = alike[cell.label], _settings(cell)
        differing = [k for k in own if any(one.get(k) != own[k] for one in others)]
        words = ", ".join(f"{key}={own[key]}" for key in differing)
        told.append(cell.told(words) if words else cell)
    return told


def _settings(cell: Cell) -> dict[str, Any]:
    """Return settings of a cell that its label does not say."""
    named = {"scenario": cell.scenario, "net": cell.net}
    return {**named, **cell.method_config, **cell.calibration_config}
