"""Cells: complete configurations of one experiment, hashed by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import PrivateAttr

from bench import registry
from bench.contract import (
    Budget,
    Config,
    Inference,
    ProtocolConstants,
    TaskShape,
    TeacherRecipe,
    added,
)
from bench.errors import BenchError, unknown_name
from bench.results.files import content_hash
from bench.suites import protocols

UNCALIBRATED = "none"
SettingsIdentity = Callable[[registry.Kind, str, Mapping[str, Any]], dict[str, Any]]
Version = Callable[[registry.Kind, str], int]
_POOL = {"datasets", "architectures", "pool", "protocol", "budget", "seed"}


class PoolChoice(Config):
    """An imported pool, by name and by the digest of its content."""

    name: str
    sha256: str


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
    _apart: str = PrivateAttr("")

    @property
    def apart(self) -> str:
        """What tells the cell from others of its suite whose label would be the same; see `told`.

        As `net=resnet10, steps=750`; not in the hash.
        """
        return self._apart

    def told(self, apart: str) -> Cell:
        """Return the same cell with words that tell it apart."""
        cell = self.model_copy()
        cell._apart = apart
        return cell

    @property
    def shape(self) -> TaskShape:
        """The task shape."""
        return TaskShape(self.n_way, self.k_shot, self.n_query)

    @property
    def tested(self) -> tuple[str, ...]:
        """The data sets whose test tasks are scored."""
        return self.test_datasets or self.datasets

    @property
    def pool_settings(self) -> str:
        """All settings that decide which teachers the cell's pool has, as JSON."""
        return self.model_dump_json(include=_POOL)

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
            + "".join(f" · {words}" for words in (self.variant, self._apart) if words)
        )

    @property
    def inference(self) -> Inference:
        """Whether queries are predicted alone, as the cell's plug-ins say; not in the hash.

        Batch norm over the queries of a task makes a cell transductive, too.
        """
        method, learner = (registry.load(k, getattr(self, k)) for k in ("method", "learner"))
        parts = [learner]
        if self.calibration != UNCALIBRATED:
            parts.append(registry.load("calibration", self.calibration))
        config = method.Config.model_validate(self.method_config)
        batch = method.bn_of(config, learner, self.protocol) == "transductive"
        return "transductive" if batch or any(p.transductive for p in parts) else "inductive"

    def identity(self) -> dict[str, Any]:
        """Return the object that is hashed; see `Config.identity`."""
        return self.identity_by(settings_identity, _version)

    def identity_by(self, settings: SettingsIdentity, version: Version) -> dict[str, Any]:
        """Return the object that is hashed, by what somebody says of the plug-ins.

        Args:
            settings: as `settings_identity`.
            version: returns the version of a plug-in by its kind and name.
        """
        values = super().identity()
        values["method_config"] = settings("method", self.method, self.method_config)
        if self.calibration != UNCALIBRATED:
            values["calibration_config"] = settings(
                "calibration", self.calibration, self.calibration_config
            )
        plug_ins: dict[registry.Kind, set[str]] = {
            "method": {self.method},
            "learner": {self.learner},
            "net": {self.net, *self.architectures},
            "calibration": {self.calibration} - {UNCALIBRATED},
        }
        named: list[tuple[registry.Kind, str]] = [
            (kind, name) for kind, names in plug_ins.items() for name in names
        ]
        versions = versions_of(named, version)
        if self.pool is None and TeacherRecipe.version > 1:
            versions["teacher recipe"] = TeacherRecipe.version
        return values | ({"versions": versions} if versions else {})

    def method_identity(self) -> dict[str, Any]:
        """Return the part of the identity that is the method's configuration."""
        return settings_identity("method", self.method, self.method_config)

    def hashed(
        self, dataset_digests: Mapping[str, str], identity: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the cell's hash is of, for records: its configuration, and the data.

        Args:
            dataset_digests: by the data set's name.
            identity: of the cell; None takes what the installed plug-ins make it.
        """
        return {
            "cell": self.identity() if identity is None else identity,
            "datasets": {name: dataset_digests.get(name, "missing") for name in self.datasets},
            "schema": 1,  # of the first records; fixed, or every hash would change
        }

    def hash(self, dataset_digests: Mapping[str, str]) -> str:
        """Return the cell's hash; the folder of its record has this name."""
        return content_hash(self.hashed(dataset_digests))[:16]


def described_cell(values: Mapping[str, Any]) -> Cell:
    """Return the configuration that the fields of a record describe.

    Raises:
        ValueError: they describe none of this version.
    """
    return Cell.model_validate(
        {name: values[name] for name in Cell.model_fields if name != "pool"}
        | {"pool": _imported(values)}
    )


def _imported(values: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the imported pool of a record, as it was before its protocol replaced teachers."""
    pool, protocol = values.get("pool") or {}, values["protocol"]
    if not pool.get("name"):
        return None
    hashed = ((values.get("identity") or {}).get("cell") or {}).get("pool") or {}
    replaced = protocol.get("untrustworthy_kind"), protocol.get("untrustworthy_share")
    known = content_hash([hashed.get("sha256"), *replaced, values["seed"]]) == pool["sha256"]
    return {"name": pool["name"], "sha256": (hashed if known else pool)["sha256"]}


def settings_identity(kind: registry.Kind, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
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


def versions_of(
    plug_ins: Iterable[tuple[registry.Kind, str]], version: Version | None = None
) -> dict[str, int]:
    """Return those versions of plug-ins that are above 1, by `kind name`.

    Args:
        plug_ins: (kind, name) of each; it is loaded unless its answer is known. Networks of other
            libraries (`torchvision:NAME`) have none.
        version: returns the version of one; None takes that of the installed one.
    """
    version = version or _version
    versions = {f"{kind} {name}": version(kind, name) for kind, name in plug_ins}
    return {name: number for name, number in versions.items() if number > 1}


def _version(kind: registry.Kind, name: str) -> int:
    if ":" in name:
        return 1
    key = content_hash(["version", kind, name])
    if key not in _identities:
        _identities[key] = {"version": registry.version(kind, name)}
    return _identities[key]["version"]


_identities: dict[str, dict[str, Any]] = {}
"""What `settings_identity` and `versions_of` have answered, by a hash of the question."""


def known_identities() -> dict[str, dict[str, Any]]:
    """Return what `settings_identity` and `versions_of` have answered, for this version alone."""
    return dict(_identities)


def remember_identities(answers: Mapping[str, dict[str, Any]]) -> None:
    """Take over such answers, so that no plug-in need be loaded for them."""
    _identities.update(answers)


_SELECTABLE = {"method", "learner", "preset", "calibration", "dataset", "net", "n_way", "k_shot"}
_SELECTABLE |= {"seed", "variant"}


def selected(only: Sequence[str], key: str) -> set[str]:
    """Return the values of a key that some `key=value` keep; empty where none names the key.

    Raises:
        BenchError: one is not of that form, or of another key than cells are selected by.
    """
    return _wanted(only).get(key, set())


def _wanted(only: Sequence[str]) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for condition in only:
        key, separator, value = condition.partition("=")
        if not separator:
            raise BenchError(f"--only '{condition}' is not KEY=VALUE, as in --only method=purer")
        if key not in _SELECTABLE:
            raise unknown_name("--only key", key, _SELECTABLE)
        wanted.setdefault(key, set()).add(value)
    return wanted


def select(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Keep the cells that match every `key=value`; several values of one key are alternatives."""
    wanted = _wanted(only)

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
