"""Checks of where a record comes from: data, code, commit, plug-ins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from bench import registry
from bench.results.codebase import UNCALIBRATED, code_at, installed_code
from bench.results.record import Code, Record
from bench.verify import known
from bench.verify.findings import Checked, Finding, doubt, note, refused


def origin(record: Record, checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with, or not known of, a record's data and code."""
    yield from _data(record)
    yield from _commit(record)
    if record.code is None:
        yield note("code", "it was written before records kept the digest of their code")
    else:
        yield from _code(record, record.code, checked)


def _data(record: Record) -> Iterator[Finding]:
    if missing := [name for name in record.datasets if name not in record.dataset_digests]:
        yield refused("data", f"it names no digest of {', '.join(missing)}")
    if outside := [name for name in record.test_datasets if name not in record.datasets]:
        yield refused(
            "data", f"it was tested on {', '.join(outside)}, which its cell does not have"
        )
    for name, digest in record.dataset_digests.items():
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            yield refused("data", f"the digest of {name} is '{digest[:16]}', no SHA-256")
        elif digest not in known.data_digests(name):
            yield doubt("data", f"{name} {digest[:12]} is none of the known data")


def _commit(record: Record) -> Iterator[Finding]:
    environment = record.environment
    if environment.git_dirty:
        yield doubt("commit", "the checkout had uncommitted changes")
    elif environment.git_commit is None:
        yield note("commit", "it was run from an installed package, without a commit")
    elif not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", environment.git_commit):
        yield refused("commit", f"'{environment.git_commit[:16]}' is no commit of git")


def _code(record: Record, code: Code, checked: Checked) -> Iterator[Finding]:
    reached = {PurePosixPath(file).name for file in code.files}
    for file in _own_files(record):
        if PurePosixPath(file).name not in reached:  # the folder may have changed since
            yield refused("code", f"its code does not reach {file}, which its plug-ins stand in")
            return
    if code.digest in _digests_of_now(record):
        checked.counted.add("code")
        return
    others = [one.name for one in code.distributions if one.name != registry.OWN]
    if others:
        named = ", ".join(f"{one.name} {one.version}" for one in code.distributions)
        yield doubt("code", f"its code is not installed here to be compared ({named})")
        return
    environment = record.environment
    base = None
    if environment.git_commit and environment.git_dirty is False:
        base = code_at(environment.git_commit)
    if base is None:
        yield doubt("code", "its code is neither the installed one nor that of a known commit")
    elif code.digest not in {base.cell(record, trains).digest for trains in _trains(record)}:
        text = f"its code is not that of commit {str(environment.git_commit)[:10]}"
        yield refused("code", f"{text}, which it says it was run from")
    else:
        checked.counted.add("code")


def _own_files(record: Record) -> list[str]:
    """Return the files that the record's plug-ins of this package stand in."""
    named: list[tuple[registry.Kind, str]] = [("method", record.method)]
    named.append(("learner", record.learner))
    if record.calibration != UNCALIBRATED:
        named.append(("calibration", record.calibration))
    return [
        f"{registry.entry(kind, name).value.partition(':')[0].replace('.', '/')}.py"
        for kind, name in named
        if known.settings(kind, name) is not None and name in registry.offered(kind)
    ]


def _digests_of_now(record: Record) -> set[str]:
    """Return the digests that the code of a record has as it is installed; none if it is not."""
    plug_ins: list[tuple[registry.Kind, str]] = [("method", record.method)]
    plug_ins.append(("learner", record.learner))
    if any(name not in registry.offered(kind) for kind, name in plug_ins):
        return set()
    code = installed_code()
    return {code.cell(record, trains).digest for trains in _trains(record)}


def _trains(record: Record) -> list[bool]:
    """Return whether a record's teachers were trained for it: both where only its method says."""
    own = known.settings("method", record.method)
    if record.pool is not None and record.pool.name is not None:
        return [False]
    return [own["uses_pool"]] if own else [True, False]
