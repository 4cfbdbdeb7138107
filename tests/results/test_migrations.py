"""Records of older and newer versions: raised, understood in part, or refused in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bench.errors import BenchError
from bench.results import migrations
from bench.results.migrations import MIGRATIONS, NewerRecordError, parse_record
from bench.results.record import SCHEMA, Record

STORED = sorted((Path(__file__).parents[2] / "results").glob("*/*/record.json"))
PARTS = sorted(
    name
    for name, field in Record.model_fields.items()
    for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
    if isinstance(kind, type) and issubclass(kind, BaseModel)
)
NEWER = {
    "code": {"digest": "d", "distributions": [{"name": "plug-in", "version": "1"}]},
    "process": {"host": "one", "pid": 1},
}
"""Parts that a record of schema 1 may have, since it may hold fields of later versions."""


@pytest.fixture
def values() -> dict[str, Any]:
    """A stored record that has every part."""
    for path in STORED:
        found = json.loads(path.read_text(encoding="utf-8"))
        found = NEWER | found
        if found["schema_version"] == 1 and all(found.get(part) for part in PARTS):
            return copy.deepcopy(found)
    raise AssertionError("no stored record has all parts")


def test_every_older_version_has_a_step() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))


def test_a_record_of_schema_1_is_one_of_this_version(values: dict[str, Any]) -> None:
    assert values["schema_version"] == 1
    before = json.dumps(values)
    record, unknown = parse_record(values)
    assert (record.schema_version, unknown) == (SCHEMA, ())
    assert (record.identity, record.extra) == (None, {})
    assert record.cell_hash == values["cell_hash"]
    assert json.dumps(values) == before


@pytest.mark.parametrize(
    ("changes", "inference"),
    [
        ({}, "transductive"),
        ({"protocol": {"bn": "support"}}, "inductive"),
        ({"method_config": {"bn": "running"}}, "inductive"),
        ({"method_config": {"bn": "batch"}, "protocol": {"bn": "support"}}, "transductive"),
        ({"method": "distill_ensemble", "learner": "centroids"}, "inductive"),
        ({"method": "distill_ensemble", "learner": "protonet"}, "transductive"),
        ({"method": "average", "learner": "centroids"}, "transductive"),
    ],
)
def test_an_older_record_learns_its_inference_from_batch_norm(
    values: dict[str, Any], changes: dict[str, Any], inference: str
) -> None:
    values |= {"method": "average", "learner": "maml", "method_config": {}}
    protocol = values["protocol"] | {"bn": "transductive"} | changes.get("protocol", {})
    record, _ = parse_record({**values, **changes, "protocol": protocol})
    assert record.inference == inference


def test_what_this_version_writes_it_reads(values: dict[str, Any]) -> None:
    record, _ = parse_record({**values, "extra": {"ignored": 1}})
    written = record.model_copy(update={"identity": {"cell": {}}, "extra": {"barrier": 0.5}})
    again, unknown = parse_record(json.loads(written.model_dump_json()))
    assert (again, unknown) == (written, ())


def test_steps_are_taken_in_order(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "SCHEMA", SCHEMA + 1)
    monkeypatch.setitem(MIGRATIONS, SCHEMA, lambda old: {**old, "seed": old["seed"] + 40})
    record, _ = parse_record(values)
    assert record.seed == values["seed"] + 40


@pytest.mark.parametrize("part", [None, *PARTS])
def test_fields_that_are_not_known_are_left_out_and_named(
    values: dict[str, Any], part: str | None
) -> None:
    expected, _ = parse_record(values)
    (values[part] if part else values)["from_the_future"] = {"a": [1]}
    record, unknown = parse_record(values)
    assert record == expected
    assert unknown == (f"{part}.from_the_future" if part else "from_the_future",)


def test_several_unknown_fields_are_left_out_together(values: dict[str, Any]) -> None:
    for name in ("b", "a"):
        values[name] = values["code"]["distributions"][0][name] = 1
    assert parse_record(values)[1] == ("a", "b", *(f"code.distributions.0.{x}" for x in "ab"))


def test_a_newer_schema_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(NewerRecordError, match=f"schema {SCHEMA + 1}.*up to {SCHEMA}; update"):
        parse_record({**values, "schema_version": SCHEMA + 1})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "a list"),
        ({}, "schema_version is None"),
        ({"schema_version": 0}, "schema_version is 0"),
        ({"schema_version": True}, "schema_version is True"),
        ({"schema_version": "1"}, "schema_version is '1'"),
        ({"schema_version": 1}, "status: Field required"),
    ],
)
def test_what_is_no_record_is_refused(content: object, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        parse_record(content)


def test_a_wrong_value_is_named_beside_unknown_fields(values: dict[str, Any]) -> None:
    values["timing"] = {"fit_s": "long", "later": 1}
    with pytest.raises(BenchError, match=r"timing\.fit_s: "):
        parse_record(values)
