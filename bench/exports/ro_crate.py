"""A folder of records as an RO-Crate: what was run, with which software, from what, to what.

Sources: RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) and its profile Process Run Crate 0.5
(https://w3id.org/ro/wfrun/process/0.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import registry
from bench.errors import BenchError
from bench.results.files import file_sha256
from bench.results.record import Distribution, Record
from bench.results.store import StoredRecord

METADATA = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    "https://w3id.org/ro/terms/workflow-run/context",
]
FORMATS = {
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".txt": "text/plain",
}
Entity = dict[str, Any]


def crate(root: Path, stored: Sequence[StoredRecord], licence: str, author: str = "") -> Entity:
    """Return the metadata of a folder of records, as JSON-LD.

    Args:
        root: the folder; paths in the crate are relative to it.
        stored: its records.
        licence: address of the licence of the records.
        author: who ran them, if that is to be said.

    Raises:
        BenchError: no record is given.
    """
    if not stored:
        raise BenchError(f"there is no record below '{root}'; name a folder of runs or results")
    files = {one.folder: _files(root, one) for one in stored}
    software = {e["@id"]: e for one in stored for e in _software(one.record)}
    data = {e["@id"]: e for one in stored for e in _data(one.record)}
    actions = [_action(one, files[one.folder], author) for one in stored]
    parts = [entity for some in files.values() for entity in some]
    people = [{"@id": "#author", "@type": "Organization", "name": author}] if author else []
    return {
        "@context": CONTEXT,
        "@graph": [
            {
                "@id": METADATA,
                "@type": "CreativeWork",
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
                "about": {"@id": "./"},
            },
            _root(stored, parts, actions, licence, author),
            {
                "@id": PROFILE,
                "@type": "CreativeWork",
                "name": "Process Run Crate",
                "version": "0.5",
            },
            {"@id": licence, "@type": "CreativeWork", "name": Path(licence).name},
            *people,
            *software.values(),
            *data.values(),
            *actions,
            *parts,
        ],
    }


def _root(
    stored: Sequence[StoredRecord],
    parts: Sequence[Entity],
    actions: Sequence[Entity],
    licence: str,
    author: str,
) -> Entity:
    suites = ", ".join(sorted({one.record.suite for one in stored}))
    methods = ", ".join(sorted({one.record.method for one in stored}))
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Results of the suites {suites}",
        "description": f"{len(stored)} cells of the methods {methods}, run by purer-bench",
        "datePublished": max(one.record.ended for one in stored),
        "license": {"@id": licence},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": one["@id"]} for one in parts],
        "mentions": [{"@id": one["@id"]} for one in actions],
        **({"author": {"@id": "#author"}} if author else {}),
    }


def _files(root: Path, one: StoredRecord) -> list[Entity]:
    found = []
    for path in sorted(one.folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            name = path.resolve().relative_to(root.resolve()).as_posix()
            kind = FORMATS.get(path.suffix, "application/octet-stream")
            kind = "application/json" if path.name == "DONE" else kind
            found.append(
                {
                    "@id": quote(name),
                    "@type": "File",
                    "name": path.name,
                    "contentSize": str(path.stat().st_size),
                    "encodingFormat": kind,
                    "sha256": file_sha256(path),
                }
            )
    return found


def _software(record: Record) -> Iterable[Entity]:
    """Yield the harness and the packages of plug-ins, each with its version."""
    yield _package(_harness(record))
    for one in record.code.distributions if record.code else ():
        if one.name != registry.OWN:
            yield _package(one)


def _harness(record: Record) -> Distribution:
    named = record.code.distributions if record.code else []
    own = next((one for one in named if one.name == registry.OWN), None)
    version = own.version if own else "unknown"
    return Distribution(name=registry.OWN, version=version, commit=record.environment.git_commit)


def _package(one: Distribution) -> Entity:
    commit = f" commit {one.commit}" if one.commit else ""
    return {
        "@id": f"#{quote(one.name)}-{one.commit or one.version}",
        "@type": "SoftwareApplication",
        "name": one.name,
        "softwareVersion": f"{one.version}{commit}",
    }


def _data(record: Record) -> Iterable[Entity]:
    for name in record.datasets:
        digest = record.dataset_digests.get(name, "")
        yield {
            "@id": f"#data-{quote(name)}-{digest[:16]}",
            "@type": "CreativeWork",
            "name": name,
            "identifier": digest,
        }


def _action(one: StoredRecord, files: Sequence[Entity], author: str) -> Entity:
    record = one.record
    data = "+".join(record.tested)
    config = [e["@id"] for e in files if e["name"] == "config.json"]
    inputs = [*(e["@id"] for e in _data(record)), *config]
    failed = record.status == "failed"
    return {
        "@id": f"#{quote(record.suite)}-{record.cell_hash}",
        "@type": "CreateAction",
        "name": f"{record.method} with {record.learner} on {data}, {record.k_shot}-shot, "
        f"seed {record.seed}",
        "description": record.command,
        "startTime": record.started,
        "endTime": record.ended,
        "instrument": [{"@id": e["@id"]} for e in _software(record)],
        "object": [{"@id": name} for name in inputs],
        "result": [{"@id": e["@id"]} for e in files if e["@id"] not in config],
        "actionStatus": {
            "@id": f"http://schema.org/{'Failed' if failed else 'Completed'}ActionStatus"
        },
        **({"error": record.reason} if failed else {}),
        **({"agent": {"@id": "#author"}} if author else {}),
    }
