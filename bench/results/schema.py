"""The JSON Schema of the record, as a file of the package: `python -m bench.results.schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.results.files import write_json
from bench.results.record import Record

FILE = Path(__file__).with_name("record.schema.json")


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of the records that this version writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Record.model_json_schema(),
    }


if __name__ == "__main__":
    write_json(FILE, record_schema())
