"""The schema file is that of the model, and stored records are of it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from bench.results.migrations import parse_record
from bench.results.schema import FILE, record_schema

RESULTS = Path(__file__).parents[2] / "results"


def test_the_schema_file_is_that_of_the_model() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert stored == record_schema(), "make it again: python -m bench.results.schema"


def test_the_schema_accepts_stored_records_and_refuses_others() -> None:
    validator = jsonschema.Draft202012Validator(record_schema())
    validator.check_schema(record_schema())
    path = sorted(RESULTS.glob("*/*/record.json"))[0]
    record, _ = parse_record(json.loads(path.read_text(encoding="utf-8")))
    values = record.model_dump(mode="json")
    validator.validate(values)
    for wrong in ({"status": "perhaps"}, {"accuracy": {"mean": "high"}}, {"unheard_of": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**values, **wrong})
