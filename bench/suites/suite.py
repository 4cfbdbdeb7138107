"""Suites: YAML files that list methods and settings of many cells."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from bench.contract.config import Config, ConfigT
from bench.errors import BenchError, unknown_name
from bench.suites.cell import UNCALIBRATED
from bench.suites.files import suite_file

TEXTS = {"pool"}
"""Fields of a suite whose value is a name, whatever else YAML would take it for."""
NAME = re.compile(r"\w[\w.+:-]*")
"""Names of suites: of folders, and of records that `bench verify` accepts."""
UNSETTABLE = {"name", "parts", "methods", "budgets", "variants"}
"""Fields of a suite that only its file may set."""


class MethodEntry(Config):
    """One method of a suite, with the learners, calibrations and presets it is run with."""

    method: str
    learner: str | list[str] | None = None
    preset: str = "released"
    net: str | None = None
    """the meta-model, where it differs from the suite's"""
    calibration: str | list[str] = UNCALIBRATED
    config: dict[str, Any] = {}
    budgets: dict[str, dict[str, Any]] = {}
    """per budget name: settings beside `config` that hold under that budget; those of `short` hold
    under `micro` too, less what that sets itself"""

    def budget_layers(self, budget: str) -> list[tuple[str, dict[str, Any]]]:
        """Return budget names and their settings beside `config` that hold under a budget."""
        names = ("short", "micro") if budget == "micro" else (budget,)
        return [(name, self.budgets[name]) for name in names if name in self.budgets]


class Variant(Config):
    """A protocol that all methods of a suite are run under: a named one with constants changed."""

    protocol: str | None = None
    """a protocol's name; None takes the suite's"""
    set: dict[str, Any] = {}
    """constants that differ from it"""


class Suite(Config):
    """A suite as written in YAML."""

    name: str
    title: str
    parts: list[str] = []
    """suites that this one consists of; what else it says holds for all of them"""
    scenario: Literal["SS", "SH", "MH"] = "SS"
    datasets: list[str] = []
    """those that `--dataset-dir` names, if empty"""
    architectures: list[str] = []
    pool: str | None = None
    """an imported pool (`bench teachers import`) in place of one that is trained"""
    net: str = "conv4"
    protocol: str = "cvpr23"
    variants: list[Variant] = Field(default=[Variant()], min_length=1)
    """the protocols that every method is run under, where the suite compares protocols"""
    budget: str = "short"
    budgets: dict[str, dict[str, Any]] = {}
    """per budget name: counts that differ from the named budget's, for this suite; and
    `n_test_tasks`, where the budget shall decide it. No count of `micro` is over that of `short`"""
    n_way: int = 5
    k_shot: list[int] = Field(default=[1], min_length=1)
    n_query: int = 15
    n_test_tasks: int = 600
    seeds: int = Field(default=1, ge=1)
    methods: list[MethodEntry] = []

    @model_validator(mode="after")
    def _complete(self) -> Suite:
        for name in ("architectures", "methods"):
            if not self.parts and not getattr(self, name):
                raise ValueError(f"{name} is missing; a suite names some, or other suites as parts")
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"'{self.name}' is no name of a suite; rename its file, or give it a `name`, of "
                "letters, digits and . _ + : -"
            )
        for field in ("datasets", "architectures", "k_shot"):
            values = getattr(self, field)
            if again := next((one for one in values if values.count(one) > 1), None):
                raise ValueError(f"{field} names {again} more than once; name it once")
        return self


def read_suite(name: str, settings: Sequence[str] = ()) -> tuple[Suite, dict[str, dict[str, Any]]]:
    """Read a suite and apply `key=value` settings to it.

    Args:
        name: a suite's name or a YAML file.
        settings: `key=value`, dotted: a suite field (`budget=short`, `n_test_tasks=100`), a
            constant of the protocol or budget (`protocol.bn=support`), or a method's or
            calibration's (`purer.pixel_lr=0.1`, `icfil.steps=5`).

    Returns:
        The suite, and the overrides of `protocol`, `budget`, each method and calibration by name.

    Raises:
        BenchError: an unknown suite, key or value.
    """
    content = _content(name)
    overrides: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, value = parse_setting(setting)
        room, dot, leaf = key.partition(".")
        if dot:
            overrides.setdefault(room, {})[leaf] = value
        elif key in Suite.model_fields and key not in UNSETTABLE:
            several = isinstance(content.get(key), list) or key in ("k_shot", "datasets")
            content[key] = [value] if several and not isinstance(value, list) else value
        else:
            settable = set(Suite.model_fields) - UNSETTABLE
            raise unknown_name("setting", key, settable | {"protocol.…", "budget.…", "METHOD.…"})
    _take_test_tasks(content, {setting.partition("=")[0] for setting in settings})
    suite = validated(Suite, content, f"suite '{name}'")
    known = {"protocol", "budget"} | suite_methods(suite)
    for part in suite_parts(suite):
        known |= {name for entry in part.methods for name in listed(entry.calibration)}
    known -= {UNCALIBRATED}
    for room in overrides:
        if room not in known:
            raise unknown_name("setting", f"{room}.{next(iter(overrides[room]))}", known)
    return suite, overrides


def _content(name: str) -> dict[str, Any]:
    """Return the content of a suite's file."""
    path = suite_file(name)
    try:
        content: object = deepcopy(_parsed(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BenchError(
            f"suite file '{path}' is not readable ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(content, dict):
        raise BenchError(f"suite file '{path}' holds no mapping; see 'micro.yaml'")
    content.setdefault("name", path.stem)
    return content


@functools.lru_cache(64)
def _parsed(text: str) -> object:
    """Return the content of YAML; the parts of a suite are asked for again and again."""
    return yaml.safe_load(text)


def parse_setting(setting: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, the value in YAML.

    Raises:
        BenchError: it is not of that form.
    """
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise BenchError(f"--set '{setting}' is not KEY=VALUE, as in --set budget=short")
    return key, text or None if key in TEXTS else _value(setting, text)


def _value(setting: str, text: str) -> object:
    try:
        return yaml.safe_load(text) if text else ""
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BenchError(
            f"--set '{setting}' has no YAML value ({reason}); write it as in --set k_shot=[1,5]"
        ) from None


def _take_test_tasks(content: dict[str, Any], given: set[str]) -> None:
    """Move the budget's number of test tasks to the suite's own, unless the settings give one."""
    budgets = content.get("budgets")
    for name, counts in (budgets if isinstance(budgets, dict) else {}).items():
        if isinstance(counts, dict) and "n_test_tasks" in counts:
            n_test_tasks = counts.pop("n_test_tasks")
            if name == content.get("budget", "short") and "n_test_tasks" not in given:
                content["n_test_tasks"] = n_test_tasks


def suite_parts(suite: Suite) -> list[Suite]:
    """Return the parts of a suite with the settings that it gives all of them, or itself."""
    if not suite.parts:
        return [suite]
    said = suite.model_fields_set - {"name", "title", "parts"}
    common = {key: getattr(suite, key) for key in said}
    return [_part(suite, name).model_copy(update=common) for name in suite.parts]


def _part(suite: Suite, name: str) -> Suite:
    content = _content(name)
    if content.get("parts"):
        raise BenchError(
            f"part '{name}' of suite '{suite.name}' has parts itself; name those in its place"
        )
    _take_test_tasks(content, set())
    part = validated(Suite, content, f"suite '{name}'")
    if part.pool not in (None, suite.pool):
        raise BenchError(
            f"part '{part.name}' names pool '{part.pool}', suite '{suite.name}' does not; "
            "say there which pool all parts take"
        )
    return part


def suite_methods(suite: Suite) -> set[str]:
    """Return the names of the methods of a suite or its parts."""
    return {entry.method for part in suite_parts(suite) for entry in part.methods}


def suite_datasets(suite: Suite) -> list[str]:
    """Return the names of the data sets of a suite or its parts, in order."""
    return list(dict.fromkeys(name for part in suite_parts(suite) for name in part.datasets))


def listed(value: str | list[str]) -> list[str]:
    """Return a name, or some, as a list."""
    return [value] if isinstance(value, str) else value


def validated(kind: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Return a model of some values, or raise an error of one line that names the wrong value.

    Raises:
        BenchError: an unknown or missing key, or a value that may not be.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if not key:
            raise BenchError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        if first["type"] == "missing":
            raise BenchError(f"{where} lacks '{key}'; add it") from None
        if first["type"] == "extra_forbidden":
            raise unknown_name(f"key of {where}", key, kind.model_fields) from None
        raise BenchError(
            f"{key} = {first['input']!r} in {where}: {first['msg'].lower()}; correct the value"
        ) from None
