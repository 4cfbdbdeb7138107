"""The model of `submission.json`: who hands in which results.

`python -m bench.verify.schema` writes its JSON Schema to `community/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.results.files import write_json
from bench.results.record import Distribution

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "community" / "submission.schema.json"
NAME = r"^[a-z0-9][a-z0-9_-]{1,59}$"


class Submission(BaseModel):
    """Who hands in which results."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    """of the folder below `community/`"""
    authors: list[str] = Field(min_length=1)
    url: str | None = None
    """of the method's code"""
    paper: str | None = None
    """a DOI, an arXiv number or an address"""
    licence: str = "CC-BY-4.0"
    """of the records"""
    packages: list[Distribution]
    """that the plug-ins came from, as the records name them"""
    harness: str
    """version of purer-bench that packed it"""
    cells: list[str] = Field(min_length=1)
    """cell hashes"""


def submission_schema() -> dict[str, Any]:
    """Return the JSON Schema of `submission.json`."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **Submission.model_json_schema()}


if __name__ == "__main__":
    write_json(SCHEMA_FILE, submission_schema())
