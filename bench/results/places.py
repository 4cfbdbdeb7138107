"""What the cells of two sets of results are matched by, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import BenchError
from bench.results.circumstances import WHO
from bench.results.files import canonical_json
from bench.results.record import Record
from bench.results.store import StoredRecord

IDENTITY = ("scenario", "datasets", "tested", "n_way", "k_shot", "n_query", "n_test_tasks", "seed")
APART = ("protocol", "net", "architectures", "budget", "method_config")
"""What cells are matched by, too, one after the other, while a side has several for one place."""


@dataclass(frozen=True)
class Side:
    """One of two sets: its name, its records, and whether the name contains the method."""

    name: str
    stored: list[StoredRecord]


def shown(record: Record) -> str:
    """Return a method with its preset, learner and calibration: `purer (tuned) maml + icfil`."""
    preset = "" if record.preset == "released" else f" ({record.preset})"
    calibration = "" if record.calibration == "none" else f" + {record.calibration}"
    return f"{record.method}{preset} {record.learner}{calibration}"


def matching_fields(a: Side, b: Side, methods: bool) -> tuple[str, ...]:
    """Return the fields of records by which the cells of two sides are matched.

    Args:
        a: one side.
        b: the other.
        methods: match cells without regard to method, preset, learner and calibration.
    """
    fields: tuple[str, ...] = IDENTITY if methods else IDENTITY + WHO
    for field in APART[: -1 if methods else None]:
        if _crowded(a, fields) or _crowded(b, fields):
            fields += (field,)
    return fields


def places(side: Side, fields: Sequence[str]) -> dict[str, StoredRecord]:
    """Return the records by what they stand for; digests tell image files apart.

    Raises:
        BenchError: the side has several cells for one place.
    """
    if two := _crowded(side, fields):
        raise BenchError(
            f"'{side.name}' has several cells for {cell_name(two[1], IDENTITY + WHO)}: "
            f"{two[0].cell_hash} and {two[1].cell_hash}; name one suite's folder, or a method with "
            "its learner as in 'purer maml', or keep one of the cells with --only"
        )
    places: dict[str, StoredRecord] = {}
    for one in sorted(side.stored, key=lambda s: s.record.ended):
        key = _key(one.record, fields)
        known = places.get(key)
        if known is None or one.record.status == "done" or known.record.status != "done":
            places[key] = one
    return places


def _crowded(side: Side, fields: Sequence[str]) -> tuple[Record, Record] | None:
    """Return two different cells of a side that stand for the same, if there are."""
    known: dict[str, Record] = {}
    for record in (one.record for one in side.stored):
        other = known.setdefault(_key(record, fields), record)
        if other.cell_hash != record.cell_hash:
            return other, record
    return None


def _key(record: Record, fields: Sequence[str]) -> str:
    protocol = [record.protocol["name"], record.variant]
    return canonical_json([protocol if f == "protocol" else getattr(record, f) for f in fields])


def cell_name(record: Record, fields: Sequence[str]) -> str:
    """Return the name of a cell, with what it is matched by."""
    where = f"{'+'.join(record.tested)} {record.n_way}-way {record.k_shot}-shot"
    more = {
        "protocol": record.variant,
        "net": f"{record.net} meta-model",
        "method_config": f"cell {record.cell_hash[:8]}",
    }
    who = [shown(record)] if WHO[0] in fields else []
    apart = [text for field, text in more.items() if field in fields and text]
    return ", ".join([*who, where, f"seed {record.seed}", *apart])
