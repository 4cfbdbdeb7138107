"""What the fields of a configuration mean: the docstrings below them, taken apart."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap
from dataclasses import dataclass

from bench.contract.config import Config

_PART = re.compile(r"\s*\b(Source|Unit): ?")


@dataclass(frozen=True)
class Description:
    """What a docstring says of a field: its meaning, its unit and where its value comes from."""

    meaning: str
    unit: str = ""
    source: str = ""


@functools.cache
def descriptions(kind: type[Config]) -> dict[str, Description]:
    """Return the description of each documented field of a configuration, by name.

    A field's docstring stands below it, in its class or the one that it was inherited from. Last
    in it may stand the sentences `Unit: …` and `Source: …`, which are told apart.
    """
    found: dict[str, Description] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Config) and base is not Config:
            found |= {name: _description(text) for name, text in _docstrings(base).items()}
    return {name: found[name] for name in kind.model_fields if name in found}


def _docstrings(kind: type) -> dict[str, str]:
    """Return the strings below the annotated fields of one class; none where it has no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _description(text: str) -> Description:
    meaning, *rest = _PART.split(" ".join(text.split()))
    parts = dict(zip(rest[::2], (value.rstrip(".") for value in rest[1::2]), strict=True))
    return Description(meaning, parts.get("Unit", ""), parts.get("Source", ""))
