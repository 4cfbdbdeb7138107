"""The checks of all records below a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.results.find import cell_folders
from bench.results.migrations import NewerRecordError, parse_record
from bench.results.record import Record
from bench.results.store import PREDICTIONS, RECORD, TASKS
from bench.suites.catalogue import names_of
from bench.verify.baseline import baseline
from bench.verify.configuration import configuration, in_suite
from bench.verify.copies import copies
from bench.verify.findings import Checked, Finding, Verdict, doubt, note, refused
from bench.verify.numbers import lists_classes, numbers
from bench.verify.origin import origin
from bench.verify.plausible import plausible
from bench.verify.seals import Manifests, irregular, seals

LARGEST_RECORD = 64 * 2**20
"""Bytes of a `record.json` that is still read."""


def verify_folder(
    root: Path, submission: bool = False, against: Path | None = None, listed: bool = True
) -> Verdict:
    """Check every record below a folder; nothing is run and no plug-in is loaded.

    Args:
        root: the folder of a cell, of a suite, of runs, or of stored results.
        submission: whether it is handed in, so that predictions and seals are required.
        against: a folder of stored records to compare with.
        listed: whether manifests, where there are some, are compared.

    Raises:
        BenchError: there is no such folder, or no record below it.
    """
    if not root.is_dir():
        what = "is no folder" if root.exists() else "is not there"
        raise BenchError(
            f"'{root}' {what}; name a folder of records, as in bench verify runs, or a file of "
            "bench submit or bench archive"
        )
    verdict = Verdict(root, [])

    def unreachable(error: OSError) -> None:
        verdict.findings.append(refused("files", f"{error.filename}: {error.strerror}"))

    manifests = Manifests(root, listed)
    records: list[tuple[Checked, Record]] = []
    for folder in sorted(cell_folders(root, unreachable)):
        checked = Checked(folder)
        verdict.cells.append(checked)
        record = _check(checked, root, manifests, submission)
        if record is not None:
            records.append((checked, record))
    if not verdict.cells:
        raise BenchError(f"there is no record below '{root}'; name a folder of runs or results")
    copies(records)
    verdict.findings += manifests.findings(submission)
    if against is not None:
        baseline(records, root, against)
    return verdict


def _check(checked: Checked, root: Path, manifests: Manifests, submission: bool) -> Record | None:
    """Check one cell, and return its record where it can be read."""
    folder, found = checked.folder, checked.findings
    if strange := irregular(folder):
        found.append(refused("files", strange))  # what is no file may never end when it is read
        return None
    found += seals(folder, manifests, submission, checked)
    try:
        record, unknown = _read(folder)
    except NewerRecordError as error:
        found.append(refused("schema", str(error)))
        return None
    except BenchError as error:
        found.append(refused("schema", str(error)))
        return None
    checked.cell_hash, checked.label = record.cell_hash, label(record)
    if unknown:
        found.append(doubt("schema", f"fields of no known meaning: {', '.join(unknown)}"))
    found += _place(record, folder, root)
    found += plausible(record)
    if any(one.check in ("shape", "names") for one in found):
        return None
    found += configuration(record)
    found += numbers(record, folder, checked)
    found += origin(record, checked)
    if submission:
        found += _required(record, folder)
    if not any(one.check == "hash" and one.level != "note" for one in found):
        checked.counted.add("hash")
    return record


def label(record: Record) -> str:
    """Return a short name of a record for people."""
    data = "+".join(record.tested)
    return (
        f"{record.method} · {record.learner} · {data} {record.n_way}-way {record.k_shot}-shot · "
        f"seed {record.seed}"
    )


def _read(folder: Path) -> tuple[Record, tuple[str, ...]]:
    path = folder / RECORD
    try:
        if path.stat().st_size > LARGEST_RECORD:
            raise BenchError(f"{RECORD} has more than {LARGEST_RECORD // 2**20} MB")
        values: Any = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise BenchError(f"{RECORD} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or ["too deep"])[0]
        raise BenchError(f"{RECORD} is not readable JSON ({first})") from None
    return parse_record(values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; readers differ in which value of a name that stands twice counts.

    Raises:
        ValueError: a name stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} stands twice")
    return found


def _place(record: Record, folder: Path, root: Path) -> Iterator[Finding]:
    """Compare the names of folders with the record's: `<suite>/<cell hash>`."""
    name, suite = folder.resolve().name, folder.resolve().parent.name
    if re.fullmatch(r"[0-9a-f]{16}", name) and name != record.cell_hash:
        yield refused("place", f"its folder is of cell {name}, its record of {record.cell_hash}")
    inside = folder.resolve() != root.resolve() != folder.resolve().parent
    yield from in_suite(record)
    if suite != record.suite and (inside or suite in names_of("suite")):
        yield refused("place", f"it lies in folder '{suite}', its suite is '{record.suite}'")


def _required(record: Record, folder: Path) -> Iterator[Finding]:
    """Yield what a record lacks that is handed in."""
    if record.status == "failed":
        yield refused("submission", "it failed; hand in finished cells")
    if record.status != "done":
        return
    if record.identity is None:
        yield refused("submission", "it keeps no identity: run it again with this version")
    if record.code is None:
        yield refused("submission", "it keeps no digest of its code: run it again")
    if not lists_classes(folder):
        yield refused("submission", f"{TASKS} does not name the classes of its tasks")
    if not (folder / PREDICTIONS).exists():
        yield refused("submission", f"{PREDICTIONS} is missing: run it again with this version")
    if record.environment.git_dirty:
        yield refused("submission", "the checkout had uncommitted changes: commit, run it again")
    for one in record.code.distributions if record.code else ():
        if one.commit is None and one.name != "purer-bench":
            yield note("submission", f"no commit of {one.name} {one.version} is known")
