"""A cell is one complete configuration, hashed by content; a suite names many in a YAML file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from bench import protocols, registry
from bench.contract import Budget, Config, ProtocolConstants, TaskShape, added
from bench.data.sources import check_name
from bench.errors import BenchError, unknown_name
from bench.records import SCHEMA, content_hash

SUITES = Path(__file__).parent / "suites"
UNCALIBRATED = "none"
TEXTS = {"pool"}
"""Fields of a suite whose value is a name, whatever else YAML would take it for."""
UNSETTABLE = {"name", "parts", "methods", "budgets", "variants"}
"""Fields of a suite that only its file may set."""


class MethodEntry(Config):
    """One method of a suite, with the learners, calibrations and presets it is run with."""

    method: str
    learner: str | list[str] | None = None
    preset: str = "released"
    calibration: str | list[str] = UNCALIBRATED
    config: dict[str, Any] = {}


class PoolChoice(Config):
    """An imported pool, by name and by the digest of its content."""

    name: str
    sha256: str


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
    variants: list[Variant] = Field([Variant()], min_length=1)
    """the protocols that every method is run under, where the suite compares protocols"""
    budget: str = "short"
    budgets: dict[str, dict[str, Any]] = {}
    """per budget name: counts that differ from the named budget's, for this suite; and
    `n_test_tasks`, where the budget shall decide it"""
    n_way: int = 5
    k_shot: list[int] = Field([1], min_length=1)
    n_query: int = 15
    n_test_tasks: int = 600
    seeds: int = Field(1, ge=1)
    methods: list[MethodEntry] = []

    @model_validator(mode="after")
    def _complete(self) -> Suite:
        for name in ("architectures", "methods"):
            if not self.parts and not getattr(self, name):
                raise ValueError(f"{name} is missing; a suite names some, or other suites as parts")
        return self


class Cell(Config):
    """The complete configuration of one cell; nothing else may change its result."""

    scenario: str
    datasets: tuple[str, ...]
    test_datasets: tuple[str, ...] = added(())
    """those of `datasets` whose test tasks are scored, together; all if empty"""
    architectures: tuple[str, ...]
    pool: PoolChoice | None = added(None)
    """the imported pool; None trains one by the protocol's recipe"""
    net: str
    method: str
    preset: str
    method_config: dict[str, Any]
    learner: str
    calibration: str
    calibration_config: dict[str, Any]
    n_way: int
    k_shot: int
    n_query: int
    n_test_tasks: int
    protocol: ProtocolConstants
    budget: Budget
    seed: int

    @property
    def shape(self) -> TaskShape:
        """The task shape."""
        return TaskShape(self.n_way, self.k_shot, self.n_query)

    @property
    def tested(self) -> tuple[str, ...]:
        """The data sets whose test tasks are scored."""
        return self.test_datasets or self.datasets

    @property
    def variant(self) -> str:
        """The constants that differ from the named protocol's: `bn=support, selection=last`."""
        changed = protocols.differences(self.protocol)
        return ", ".join(f"{key}={changed[key]}" for key in sorted(changed))

    @property
    def label(self) -> str:
        """A short name for progress and messages."""
        preset = "" if self.preset == "released" else f" ({self.preset})"
        calibration = "" if self.calibration == UNCALIBRATED else f" + {self.calibration}"
        return (
            f"{self.method}{preset} · {self.learner}{calibration} · {'+'.join(self.tested)} "
            f"{self.n_way}-way {self.k_shot}-shot · seed {self.seed}"
            + (f" · {self.variant}" if self.variant else "")
        )

    def identity(self) -> dict[str, Any]:
        """Return what makes two cells the same; see `Config.identity`."""
        values = super().identity()
        values["method_config"] = self.method_identity()
        if self.calibration != UNCALIBRATED:
            values["calibration_config"] = settings_identity(
                "calibration", self.calibration, self.calibration_config
            )
        return values

    def method_identity(self) -> dict[str, Any]:
        """Return what makes two configurations of the method the same."""
        return settings_identity("method", self.method, self.method_config)

    def hash(self, dataset_digests: Mapping[str, str]) -> str:
        """Return the cell's hash: its configuration, the data, and the record's schema."""
        return content_hash(
            {
                "cell": self.identity(),
                "datasets": {name: dataset_digests.get(name, "missing") for name in self.datasets},
                "schema": SCHEMA,
            }
        )[:16]


def settings_identity(kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a plug-in's configuration; see `Config.identity`.

    Args:
        kind: `method` or `calibration`.
        name: of the plug-in, which is loaded unless its answer is known.
        config: its configuration, complete or not.
    """
    key = content_hash([kind, name, config])
    if key not in _identities:
        own: Config = registry.load(kind, name).Config.model_validate(config)
        _identities[key] = own.identity()
    return _identities[key]


_identities: dict[str, dict[str, Any]] = {}
"""What `settings_identity` has answered, by a hash of the question."""


def known_identities() -> dict[str, dict[str, Any]]:
    """Return the answers of `settings_identity` so far; they hold for this version of the code."""
    return dict(_identities)


def remember_identities(answers: Mapping[str, dict[str, Any]]) -> None:
    """Take over answers of `settings_identity`, so that no plug-in need be loaded for them."""
    _identities.update(answers)


def suite_names() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def suite_file(name: str) -> Path:
    """Return the file of a suite: a name that comes with the package, or a path to a YAML file."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BenchError(f"suite file '{name}' is not there; name a YAML file or a suite")
        return path
    if name not in suite_names():
        raise unknown_name("suite", name, suite_names())
    return SUITES / f"{name}.yaml"


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
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise BenchError(f"--set '{setting}' is not KEY=VALUE, as in --set budget=short")
        value = text or None if key in TEXTS else _value(setting, text)
        room, dot, leaf = key.partition(".")
        if dot:
            overrides.setdefault(room, {})[leaf] = value
        elif key in Suite.model_fields and key not in UNSETTABLE:
            listed = isinstance(content.get(key), list) or key in ("k_shot", "datasets")
            content[key] = [value] if listed and not isinstance(value, list) else value
        else:
            settable = set(Suite.model_fields) - UNSETTABLE
            raise unknown_name("setting", key, settable | {"protocol.…", "budget.…", "METHOD.…"})
    _take_test_tasks(content, {setting.partition("=")[0] for setting in settings})
    suite = _validated(Suite, content, f"suite '{name}'")
    known = {"protocol", "budget"} | suite_methods(suite)
    for part in suite_parts(suite):
        known |= {name for entry in part.methods for name in _listed(entry.calibration)}
    known -= {UNCALIBRATED}
    for room in overrides:
        if room not in known:
            raise unknown_name("setting", f"{room}.{next(iter(overrides[room]))}", known)
    return suite, overrides


def _content(name: str) -> dict[str, Any]:
    """Return what the file of a suite says."""
    path = suite_file(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BenchError(
            f"suite file '{path}' is not readable ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(content, dict):
        raise BenchError(f"suite file '{path}' holds no mapping; see bench/suites/micro.yaml")
    content.setdefault("name", path.stem)
    return content


def _value(setting: str, text: str) -> Any:
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
    """Return the suites that a suite consists of, with what it says for all; itself if none."""
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
    part = _validated(Suite, content, f"suite '{name}'")
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


def expand(
    suite: Suite,
    overrides: Mapping[str, Mapping[str, Any]],
    seeds: int | None = None,
    dataset_dirs: Mapping[str, Path] = {},
) -> list[Cell]:
    """Return the cells of a suite in the order in which they run.

    Methods follow one another within a data set, seed and variant of the protocol, shots within a
    method, so that pools, fits and embeddings are made once. Variants that come to the same are
    run once.
    """
    cells = [
        cell
        for part in suite_parts(suite)
        for cell in _expand_part(part, overrides, seeds or suite.seeds, dataset_dirs)
    ]
    _check_counts(cells)
    return cells


def _expand_part(
    suite: Suite,
    overrides: Mapping[str, Mapping[str, Any]],
    seeds: int,
    dataset_dirs: Mapping[str, Path],
) -> list[Cell]:
    variants = _variants(suite, overrides.get("protocol", {}))
    budget = _updated(protocols.budget(suite.budget), suite.budgets.get(suite.budget, {}))
    budget = _updated(budget, overrides.get("budget", {}))
    for architecture in [*suite.architectures, suite.net]:
        registry.check_net(architecture)
    for dataset in suite.datasets:
        check_name(dataset, dataset_dirs)
    cells = []
    for seed, datasets, protocol, entry in itertools.product(
        range(seeds), _groups(suite), variants, suite.methods
    ):
        method = registry.load("method", entry.method)
        learners = _learners(method, entry)
        own = overrides.get(entry.method, {})
        configs = {learner: _method_config(method, entry, learner, own) for learner in learners}
        calibrations = _calibrations(entry, learners, overrides)
        for learner, k_shot, calibration, tested in itertools.product(
            learners, suite.k_shot, calibrations, _tested(datasets)
        ):
            cells.append(
                _validated(
                    Cell,
                    {
                        "scenario": suite.scenario,
                        "datasets": datasets,
                        "test_datasets": tested,
                        "architectures": tuple(suite.architectures),
                        "net": suite.net,
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


def select(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Keep the cells that match every `key=value`; several values of one key are alternatives."""
    wanted: dict[str, set[str]] = {}
    keys = {"method", "learner", "preset", "calibration", "dataset", "n_way", "k_shot", "seed"}
    keys |= {"variant"}
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise BenchError(f"--only '{condition}' is not KEY=VALUE, as in --only method=purer")
        if key not in keys:
            raise unknown_name("--only key", key, keys)
        wanted.setdefault(key, set()).add(value)

    def values(cell: Cell, key: str) -> set[str]:
        return set(cell.tested) if key == "dataset" else {str(getattr(cell, key))}

    for key, accepted in wanted.items():
        present = set().union(*(values(cell, key) for cell in cells))
        for value in sorted(accepted - present):
            raise unknown_name(f"{key} in this suite", value, present)
    chosen = [c for c in cells if all(values(c, k) & accepted for k, accepted in wanted.items())]
    if not cells:
        raise BenchError("the suite has no cell; give its methods a calibration, or leave it out")
    if not chosen:
        raise BenchError(f"no cell of the suite matches {' '.join(only)}; see bench plan")
    return chosen


def _variants(suite: Suite, overrides: Mapping[str, Any]) -> list[ProtocolConstants]:
    """Return the distinct protocols of a suite; what the command line sets holds for all."""
    found: list[ProtocolConstants] = []
    for variant in suite.variants:
        named = protocols.protocol(variant.protocol or suite.protocol)
        constants = _updated(named, {**variant.set, **overrides})
        if constants not in found:
            found.append(constants)
    return found


def _learners(method: Any, entry: MethodEntry) -> list[str]:
    chosen = _listed(entry.learner or method.learners[0])
    for name in chosen:
        registry.entry("learner", name)
        if name not in method.learners:
            raise BenchError(
                f"method '{entry.method}' does not go with learner '{name}'; "
                f"use {', '.join(method.learners)}"
            )
    return chosen


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _calibrations(
    entry: MethodEntry, learners: Sequence[str], overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the complete configuration of each calibration of an entry, by name."""
    configs: dict[str, dict[str, Any]] = {}
    for name in _listed(entry.calibration):
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
        config = _validated(calibration.Config, overrides.get(name, {}), f"'{name}'")
        configs[name] = config.model_dump(mode="json")
    return configs


def _method_config(
    method: Any, entry: MethodEntry, learner: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    if entry.preset not in method.presets:
        raise unknown_name(f"preset of '{entry.method}'", entry.preset, method.presets)
    values = {**method.preset_values(entry.preset, learner), **entry.config, **overrides}
    return _validated(method.Config, values, f"'{entry.method}'").model_dump(mode="json")


def _updated(model: Any, values: Mapping[str, Any]) -> Any:
    kind = type(model)
    return _validated(kind, {**model.model_dump(), **values}, kind.__name__.lower())


def _validated(kind: Any, values: Mapping[str, Any], where: str) -> Any:
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


def _check_counts(cells: Sequence[Cell]) -> None:
    for cell in cells:
        for name, low in (("n_way", 2), ("k_shot", 1), ("n_query", 1), ("n_test_tasks", 1)):
            if getattr(cell, name) < low:
                raise BenchError(f"{name} = {getattr(cell, name)}; it must be at least {low}")
