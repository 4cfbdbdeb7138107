"""Checks of a record's configuration: its hash, the named constants, what it says of itself."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.results.files import content_hash
from bench.results.record import Record, check_hash
from bench.suites import protocols
from bench.suites.cell import UNCALIBRATED, Cell, described_cell
from bench.suites.suite import Suite, parse_setting, read_suite, suite_parts
from bench.verify import known
from bench.verify.findings import Finding, doubt, note, refused
from bench.verify.inference import inference

SHOWN = 3
"""How many differing settings a line spells out."""
EARLIER: dict[str, dict[str, list[Any]]] = {
    "glyphs": {
        "meta_iterations": [100, 80],
        "oracle_iterations": [150, 120],
        "validate_every": [40],
    },
}
"""Counts that suites of this package gave a budget in earlier versions, by suite: a change of a
suite's counts adds the former ones, so that its older records stay as honest as they were."""
TEST_SELECTED = "the checkpoint was selected on test tasks"
REDRAWN = "each evaluation drew its own tasks; differences cannot be paired"


def configuration(record: Record) -> Iterator[Finding]:
    """Yield what is wrong with a record's configuration, or not known of it."""
    try:
        cell = described_cell(record.model_dump(mode="json"))
    except (ValueError, KeyError) as error:
        first = " ".join(str(error).split())[:160]
        yield refused("configuration", f"it is none of this version ({first})")
        return
    yield from _hash(record, cell)
    yield from _labels(record, cell)
    yield from inference(record)
    yield from _preset(record)
    yield from _budget(record)


def _hash(record: Record, cell: Cell) -> Iterator[Finding]:
    if not re.fullmatch(r"[0-9a-f]{16}", record.cell_hash):
        yield refused("hash", f"'{record.cell_hash}' is no cell hash of 16 hexadecimal digits")
        return
    if check_hash(record) is False:
        yield refused("hash", "its identity has another hash than the record names")
        return
    if record.identity is not None and not _is_identity(record.identity):
        yield refused("hash", "what it says was hashed describes no cell")
        return
    stored = (record.identity or {}).get("cell")
    if strangers := _strangers(record):
        yield from _hash_of_others(record, cell, stored, strangers)
        return
    made = cell.hashed(record.dataset_digests, cell.identity_by(_own_settings, _own_version))
    if record.identity is not None and made != record.identity:
        yield refused("hash", _disagreement(made, record.identity))
    elif cell_hash_of(made) != record.cell_hash:
        yield refused(
            "hash", f"its configuration hashes to {cell_hash_of(made)}, not to {record.cell_hash}"
        )


def _is_identity(identity: Mapping[str, Any]) -> bool:
    """Tell whether an object that was hashed has the parts of one of a cell."""
    cell = identity.get("cell")
    if not isinstance(cell, dict) or not isinstance(identity.get("datasets"), dict):
        return False
    inner = ("method_config", "calibration_config", "versions")
    return all(isinstance(cell.get(name, {}), dict) for name in inner)


def cell_hash_of(hashed: Mapping[str, Any]) -> str:
    """Return the cell hash of the object that is hashed."""
    return content_hash(hashed)[:16]


def _hash_of_others(
    record: Record, cell: Cell, stored: Mapping[str, Any] | None, strangers: list[str]
) -> Iterator[Finding]:
    """Check what can be checked where plug-ins are not of this package: their word is taken."""
    names = ", ".join(strangers)
    if stored is None or record.identity is None:
        yield doubt("hash", f"{names}: not of this package, and the record keeps no identity")
        return
    versions = stored.get("versions", {})

    def settings(kind: registry.Kind, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        if known.settings(kind, name) is not None:
            return _own_settings(kind, name, config)
        claimed = stored.get(f"{kind}_config", {})
        return claimed if claimed.items() <= dict(config).items() else dict(config)

    def version(kind: registry.Kind, name: str) -> int:
        own = known.settings(kind, name)
        return versions.get(f"{kind} {name}", 1) if own is None else own["version"]

    made = cell.hashed(record.dataset_digests, cell.identity_by(settings, version))
    if made != record.identity:
        yield refused("hash", _disagreement(made, record.identity))
        return
    for kind in ("method", "calibration"):
        left_out = getattr(cell, f"{kind}_config").keys() - stored.get(f"{kind}_config", {}).keys()
        if left_out and getattr(cell, kind) in strangers:
            text = f"the hash leaves out {', '.join(sorted(left_out))} of {getattr(cell, kind)}"
            yield note("hash", f"{text}: right if that is the default, which only its package says")


def _strangers(record: Record) -> list[str]:
    """Return the names of the plug-ins that are not of this package."""
    named: list[tuple[registry.Kind, str]] = [
        ("method", record.method),
        ("learner", record.learner),
        *(("net", name) for name in {record.net, *record.architectures} if ":" not in name),
    ]
    if record.calibration != UNCALIBRATED:
        named.append(("calibration", record.calibration))
    return sorted({name for kind, name in named if known.settings(kind, name) is None})


def _own_settings(kind: registry.Kind, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what was added since and has its default."""
    added = (known.settings(kind, name) or {}).get("added", {})
    return {key: v for key, v in config.items() if key not in added or added[key] != v}


def _own_version(kind: registry.Kind, name: str) -> int:
    return (known.settings(kind, name) or {}).get("version", 1)


def _disagreement(made: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Say where a record's fields and the object that was hashed disagree."""
    a, b = made["cell"], stored.get("cell") or {}
    keys = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if made["datasets"] != stored.get("datasets"):
        keys.append("dataset_digests")
    shown = ", ".join(
        f"{key} {_short(a.get(key))} is {_short(b.get(key))} in what was hashed"
        if key in a | b
        else key
        for key in keys[:SHOWN]
    )
    return f"its fields and what was hashed disagree: {shown or 'schema'}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _labels(record: Record, cell: Cell) -> Iterator[Finding]:
    """Compare what a record says of its protocol with the constants that it ran under."""
    name = cell.protocol.name
    if name in protocols.PROTOCOLS:
        if record.variant != cell.variant:
            said = record.variant or "no constant"
            yield refused(
                "protocol",
                f"it names {said} as changed from {name}; changed are {cell.variant or 'none'}",
            )
    else:
        yield doubt("protocol", f"protocol '{name}' is not of this package; its constants are own")
    if record.selection not in (cell.protocol.selection, "last"):
        yield refused(
            "protocol",
            f"the checkpoint was selected by {record.selection}, the protocol says "
            f"{cell.protocol.selection}",
        )
    warned = {TEST_SELECTED: cell.protocol.selection == "test_max"}
    warned[REDRAWN] = cell.protocol.task_list == "redrawn"
    for text, is_so in warned.items():
        if is_so != (text in record.warnings):
            yield refused("protocol", f"its warnings {'lack' if is_so else 'have'}: {text}")
    own = known.settings("method", record.method)
    if own and record.knowledge != own["knowledge"]:
        text = f"{record.method} is of kind {own['knowledge']}, not {record.knowledge}"
        yield refused("method", text)


def _preset(record: Record) -> Iterator[Finding]:
    """Compare a method's settings with its preset; a suite and its command may change some."""
    own = known.settings("method", record.method)
    if own is None:
        return
    if record.preset not in own["presets"]:
        yield refused("preset", f"{record.method} has no preset '{record.preset}'")
        return
    special = own["for_learners"].get(record.preset, {})
    preset = special.get(record.learner, own["presets"][record.preset])
    usual = {**own["defaults"], **preset}
    given = {**own["added"], **record.method_config}  # an earlier version's lacks what came since
    if lost := sorted(usual.keys() ^ given.keys()):
        yield refused(
            "preset", f"{record.method} has other settings than {', '.join(lost[:SHOWN])}"
        )
        return
    allowed = _suite_settings(record)
    changed = {
        key: value
        for key, value in given.items()
        if value != usual[key] and value not in allowed.get(key, ())
    }
    yield from _undeclared(record, record.method, changed, f"preset '{record.preset}'", usual)


def _budget(record: Record) -> Iterator[Finding]:
    name = record.budget["name"]
    if name not in protocols.BUDGETS:
        yield doubt("budget", f"budget '{name}' is not of this package; its counts are its own")
        return
    usual = protocols.BUDGETS[name].model_dump(mode="json")
    allowed = {key: [*values] for key, values in EARLIER.get(record.suite, {}).items()}
    for part in _parts(record.suite):
        for counts in (part.budgets.get(name, {}), part.budgets.get("short", {})):
            for key, value in counts.items():
                allowed.setdefault(key, []).append(value)
    changed = {
        key: value
        for key, value in record.budget.items()
        if value != usual.get(key) and value not in allowed.get(key, ())
    }
    yield from _undeclared(record, "budget", changed, f"budget '{name}'", usual)


def _undeclared(
    record: Record, room: str, changed: Mapping[str, Any], what: str, usual: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield the changed constants that neither the suite nor the record's command names."""
    said = _command_settings(record.command)
    hidden = {key: v for key, v in changed.items() if (f"{room}.{key}", _spelt(v)) not in said}
    if hidden:
        shown = ", ".join(f"{k}={v} (not {usual.get(k)})" for k, v in [*hidden.items()][:SHOWN])
        check, text = "preset" if room != "budget" else "budget", f"{what} has {shown}"
        if _parts(record.suite):
            text += f"; neither suite '{record.suite}' nor the command says so"
            yield refused(check, text)
        else:
            yield doubt(check, f"{text}; suite '{record.suite}', not of this package, may say so")
    elif changed:
        shown = ", ".join(f"{key}={value}" for key, value in [*changed.items()][:SHOWN])
        yield note("preset", f"{what} was changed by the command: {shown}")


def _command_settings(command: str) -> set[tuple[str, str]]:
    """Return the `--set KEY=VALUE` of a command as keys and values of one spelling."""
    try:
        words = shlex.split(command)
    except ValueError:
        return set()
    found = set()
    for flag, word in itertools.pairwise(words):
        if flag == "--set":
            with contextlib.suppress(BenchError):
                key, value = parse_setting(word)
                found.add((key, _spelt(value)))
    return found


def _spelt(value: object) -> str:
    """Return a value in one spelling: `1e-4`, which YAML takes for a word, is 0.0001; 1 is 1.0."""
    if not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return repr(float(str(value)))
    return str(value)


@functools.cache
def _parts(suite: str) -> Sequence[Suite]:
    """Return a suite of this package with its parts, or nothing."""
    if re.fullmatch(r"[a-z0-9_]+", suite):
        with contextlib.suppress(BenchError):
            return suite_parts(read_suite(suite)[0])
    return ()


def in_suite(record: Record) -> Iterator[Finding]:
    """Yield where a record names a suite of this package that has no such cell."""
    parts, named = _parts(record.suite), f"suite '{record.suite}' of this package"
    if parts and not any(record.method in {one.method for one in p.methods} for p in parts):
        yield doubt("suite", f"{named} does not run {record.method}")
    if parts and not any(set(record.datasets) <= set(part.datasets) for part in parts):
        yield doubt("suite", f"{named} does not run on {', '.join(record.datasets)}")


def _suite_settings(record: Record) -> dict[str, list[Any]]:
    """Return the values that entries of the record's suite give its method's settings."""
    found: dict[str, list[Any]] = {}
    for part in _parts(record.suite):
        for entry in part.methods:
            if entry.method == record.method and entry.preset == record.preset:
                layers = [entry.config, *entry.budgets.values()]
                for key, value in ((k, v) for layer in layers for k, v in layer.items()):
                    found.setdefault(key, []).append(value)
    return found
