"""Configurations: pydantic models whose identity is hashed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Base of every configuration model: unknown keys are errors, numbers are finite, instances do
    not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return what makes two configurations the same, for hashing: fields by name, in JSON's
        types, without those `added` later that have their default."""
        values = self.model_dump(mode="json")
        for name, field_info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.identity()
            if _is_added(field_info) and value == field_info.default:
                del values[name]
        return values


def added(default: Any, **constraints: Any) -> Any:
    """Declare a field that a released configuration gains, as `pydantic.Field` does.

    At its default, which means what was done before, it leaves `Config.identity` as it was: stored
    records keep their hashes, and stored fits are found again.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def with_added(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that were written by some version of a configuration, with what was `added`
    since at its default."""
    fields = kind.model_fields
    later = {
        name: one.get_default(call_default_factory=True)
        for name, one in fields.items()
        if _is_added(one)
    }
    return {**later, **values}


def _is_added(field_info: FieldInfo) -> bool:
    extra = field_info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("added"))
