"""Configurations: pydantic models whose identity is hashed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeVar

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Base of every configuration model: frozen, without unknown keys or infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return what makes two configurations the same, for hashing: fields by name, as JSON.

        Those `added` later that have their default are left out.
        """
        values = self.model_dump(mode="json")
        for name, field_info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.identity()
            if _is_added(field_info) and value == field_info.default:
                del values[name]
        return values


ConfigT = TypeVar("ConfigT", bound=Config, default=Config)
ConfigT_co = TypeVar("ConfigT_co", bound=Config, default=Config, covariant=True)
"""The configuration of a method or a calibration; `Config` where nothing is named."""


def added(default: Any, **constraints: Any) -> Any:  # noqa: ANN401  as pydantic.Field
    """Declare a field that a released configuration gains, as `pydantic.Field` does.

    At its default, which means what was done before, it leaves `Config.identity` as it was: stored
    records keep their hashes, and stored fits are found again.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def with_added(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an earlier version, with what was `added` since at its default."""
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
