"""Reading of records of every schema version: older ones are converted, unknown fields left out.

A version of the schema that is newer than `SCHEMA` is refused: its fields may mean something else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from bench.errors import BenchError
from bench.results.record import SCHEMA, Record


class NewerRecordError(BenchError):
    """A record of a version that this one cannot read, and must not replace."""


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Convert from schema 1, which had neither `identity` nor `extra`."""
    return {**values, "identity": None, "extra": {}}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 did not say whether queries are predicted alone, which batch norm alone decided.

    Methods of teachers' features had a mode of their own among their settings; students with a
    learner that is never meta-trained kept stored statistics; all else followed the protocol.
    """
    settings, protocol = (values.get(name) for name in ("method_config", "protocol"))
    modes = [part.get("bn") for part in (settings, protocol) if isinstance(part, dict)]
    if values.get("method") in _STUDENTS and values.get("learner") == "centroids":
        modes.insert(0, "running")
    bn = next((mode for mode in modes if mode is not None), None)
    batch = bn in ("transductive", "batch")
    return {**values, "inference": "transductive" if batch else "inductive"}


_STUDENTS = {"single_dfkd", "distill_average", "distill_ensemble"}
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""What makes a record of one version of the schema one of the next."""


def parse_record(values: object) -> tuple[Record, tuple[str, ...]]:
    """Return the record that JSON values of any version stand for, and the fields left out.

    Args:
        values: the content of a `record.json`.

    Returns:
        The record, and the dotted names of fields that this version does not know, sorted.

    Raises:
        NewerRecordError: the record is of a newer schema.
        BenchError: it is not a record.
    """
    if not isinstance(values, dict):
        raise BenchError(f"it holds a {type(values).__name__}, not a record")
    values = _migrated(values)
    try:
        return Record.model_validate(values), ()
    except ValidationError as error:
        unknown = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
    for place in unknown:
        values = _without(values, place)
    try:
        record = Record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchError(f"{_dotted(first['loc'])}: {first['msg']}") from None
    return record, tuple(sorted({_dotted(place) for place in unknown}))


def _migrated(values: dict[str, Any]) -> dict[str, Any]:
    version = values.get("schema_version")
    if type(version) is not int or version < 1:
        raise BenchError(f"its schema_version is {version!r}, not a number from 1 to {SCHEMA}")
    if version > SCHEMA:
        raise NewerRecordError(
            f"it is of schema {version}, this version reads up to {SCHEMA}; update purer-bench"
        )
    for step in range(version, SCHEMA):
        values = MIGRATIONS[step](values)
    return {**values, "schema_version": SCHEMA}


def _without(values: dict[str, Any], place: tuple[int | str, ...]) -> dict[str, Any]:
    """Return a copy of nested values without the one at a place."""
    values = copy.deepcopy(values)
    holder: Any = values
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    return values


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "record"
