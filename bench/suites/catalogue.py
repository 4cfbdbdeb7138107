"""Everything that can be named, with what one line or one page says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bench import registry
from bench.contract import (
    Config,
    DrawingLearner,
    EmbeddingLearner,
    InnerLoopLearner,
    MetaLearner,
    Method,
    MetricLearner,
)
from bench.contract.descriptions import descriptions
from bench.errors import BenchError, counted
from bench.nets.build import optimiser_recipe
from bench.suites.expand import defaults, serving_learners
from bench.suites.files import suite_distribution, suite_names
from bench.suites.protocols import (
    BUDGETS,
    PROTOCOLS,
    budget,
    budget_names,
    protocol,
    protocol_names,
)
from bench.suites.suite import read_suite

CAPABILITIES = (MetaLearner, InnerLoopLearner, MetricLearner, EmbeddingLearner, DrawingLearner)

Row = dict[str, Any]


def names_of(kind: registry.Kind) -> list[str]:
    """Return the names of a kind, without importing a plug-in."""
    if kind == "protocol":
        return protocol_names()
    if kind == "budget":
        return budget_names()
    return suite_names() if kind == "suite" else registry.names(kind)


def summary(kind: registry.Kind, name: str) -> Row:
    """Return what a list says of a plug-in: name, description, distribution, and more by kind.

    A plug-in that cannot be loaded has that for its description.
    """
    row: Row = {"name": name, "description": "", "distribution": _distribution(kind, name)}
    try:
        return row | _SUMMARIES[kind](name)
    except BenchError as error:
        return row | {"description": str(error)}


def page(kind: registry.Kind, name: str) -> Row:
    """Return all that there is to say of a plug-in: its summary, docstring and settings."""
    row = {"kind": kind, **summary(kind, name)}
    if kind == "protocol":
        return row | {"settings": _constants(protocol(name), "cvpr23", protocol("cvpr23"))}
    if kind == "budget":
        return row | {"settings": _constants(budget(name), "short", budget("short"))}
    if kind == "suite":
        return row | {"methods": [one.model_dump() for one in read_suite(name)[0].methods]}
    plug_in = registry.load(kind, name)
    row["docstring"] = inspect.getdoc(plug_in) or ""
    if issubclass(getattr(plug_in, "Config", object), Config):
        presets = _presets(plug_in) if kind == "method" else {}
        row["settings"] = settings(plug_in.Config, presets)
    return row


def settings(kind: type[Config], presets: Mapping[str, Mapping[str, Any]] = {}) -> list[Row]:
    """Return the fields of a configuration: meaning, unit, source, default, and values by preset.

    Args:
        kind: the configuration.
        presets: values by the preset's name; those that it leaves are the default's.
    """
    texts, usual = descriptions(kind), defaults(kind)
    rows = []
    for name in kind.model_fields:
        text = texts.get(name)
        row: Row = {"name": name, "meaning": text.meaning if text else ""}
        row |= {"unit": text.unit if text else "", "source": text.source if text else ""}
        row |= {"default": usual.get(name)}
        row |= {preset: values.get(name, usual.get(name)) for preset, values in presets.items()}
        rows.append(row)
    return rows


def _presets(method: type[Method[Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what each preset sets, also where it differs for a class of learners."""
    found = dict(method.presets)
    for (preset, learner), values in method.learner_presets.items():
        found[f"{preset} ({learner.__name__})"] = values
    return found


def _constants(constants: Config, usual: str, others: Config) -> list[Row]:
    """Return constants with their meaning, and the values of the usual ones by their name."""
    values, known = constants.model_dump(mode="json"), others.model_dump(mode="json")
    rows = [row for row in settings(type(constants)) if row["name"] != "name"]
    return [
        {**_without(row, "default"), "value": values[row["name"]], usual: known[row["name"]]}
        for row in rows
    ]


def _without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}


def _distribution(kind: registry.Kind, name: str) -> str:
    """Return name and version of the distribution that offers a name."""
    if kind == "suite":
        return " ".join(suite_distribution(name))
    own = {"protocol": set(PROTOCOLS), "budget": set(BUDGETS)}.get(kind, set())
    found = registry.own_distribution() if name in own else registry.distribution_of(kind, name)
    return " ".join(found)


def _first_line(plug_in: object) -> str:
    return (inspect.getdoc(plug_in) or "").partition("\n")[0]


def _method(name: str) -> Row:
    method: type[Method[Any]] = registry.load("method", name)
    return {
        "description": _first_line(method),
        "knowledge": method.knowledge,
        "needs": sorted(method.needs),
        "learners": serving_learners(method),
    }


def _learner(name: str) -> Row:
    learner = registry.load("learner", name)
    offers = [kind.__name__ for kind in CAPABILITIES if issubclass(learner, kind)]
    return {"description": _first_line(learner), "offers": offers}


def _net(name: str) -> Row:
    recipe = optimiser_recipe(name)
    text = f"{recipe.optimiser}, rate {recipe.lr:g}"
    return {"description": _first_line(registry.load("net", name)), "teachers": text}


def _dataset(name: str) -> Row:
    source = registry.load("dataset", name)
    classes = {split: n for split, (n, _) in source.expected.items()}
    row = {"description": _first_line(source), "image_size": source.image_size}
    return row | {"classes": classes, "licence": source.licence}


def _calibration(name: str) -> Row:
    kind = registry.load("calibration", name)
    names = registry.names("learner")
    served = [one for one in names if kind.refuse(registry.load("learner", one)) is None]
    return {"description": _first_line(kind), "learners": served}


def _protocol(name: str) -> Row:
    usual, own = protocol("cvpr23").model_dump(), protocol(name).model_dump()
    changed = {key: value for key, value in own.items() if key != "name" and value != usual[key]}
    words = ", ".join(f"{key}={value}" for key, value in changed.items())
    return {"description": f"cvpr23 with {words}" if words else "the default", "changes": changed}


def _budget(name: str) -> Row:
    counts = budget(name)
    text = (
        f"{counted(counts.teacher_epochs, 'epoch')} per teacher, "
        f"{counted(counts.meta_iterations, 'meta-iteration')}"
    )
    return {"description": text, "counts": counts.model_dump(exclude={"name"})}


def _suite(name: str) -> Row:
    suite, _ = read_suite(name)
    return {
        "description": suite.title,
        "parts": suite.parts,
        "scenario": suite.scenario,
        "datasets": suite.datasets,
        "protocol": suite.protocol,
        "budget": suite.budget,
    }


def _function(kind: registry.Kind) -> Callable[[str], Row]:
    return lambda name: {"description": _first_line(registry.load(kind, name))}


_SUMMARIES: dict[str, Callable[[str], Row]] = {
    "method": _method,
    "learner": _learner,
    "net": _net,
    "dataset": _dataset,
    "calibration": _calibration,
    "protocol": _protocol,
    "budget": _budget,
    "suite": _suite,
    "table": _function("table"),
    "figure": _function("figure"),
}
