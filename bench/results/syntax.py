"""The definitions of a module's source, each with a digest of what it does. Standard library only.

A digest is of the normal form of a definition's syntax tree. Not part of it: comments, layout,
docstrings, type hints (other than those of class attributes, which models read), the words of error
messages, import statements. It is the same on every supported version of Python. The hints of a
dataclass's fields are part of it, but are no references: nothing runs them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Import = ast.Import | ast.ImportFrom
_OWN_SCOPE = ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Target:
    """What an import binds a name to: a module, or an attribute of one."""

    module: str
    attribute: str | None = None


@dataclass(frozen=True)
class Definition:
    """What one top-level name stands for.

    `references` are the names, dotted where attributes follow, that it uses; `imports` are those
    that an import inside it binds; `decorators` are among the references.
    """

    sha256: str
    references: frozenset[str]
    imports: dict[str, Target]
    decorators: frozenset[str] = frozenset()


@dataclass
class Module:
    """The top level of a module.

    `effects` are statements that do more than define a name; `stars` are modules that all names are
    imported from; `executed` are the modules that importing this one imports.
    """

    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, Target] = field(default_factory=dict)
    effects: list[Definition] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    executed: set[str] = field(default_factory=set)


@functools.cache
def read_module(text: str, package: str) -> Module:
    """Return the top level of a module, which is not to be changed: each text is read once.

    Args:
        text: its source.
        package: the package that relative imports start from.

    Raises:
        SyntaxError: the source is none of this version of Python.
    """
    module = Module()
    named: dict[str, list[ast.stmt]] = {}
    for statement, executed in _statements(ast.parse(text).body):
        if isinstance(statement, _Import):
            _take_imports(module, statement, package, executed)
            continue
        names = _bound(statement)
        for name in names:
            named.setdefault(name, []).append(statement)
        if not names or _is_compound(statement):
            module.effects.append(_definition([statement], package))
            module.imports |= module.effects[-1].imports
    for name, statements in named.items():
        module.definitions[name] = _definition(statements, package)
    return module


def _statements(body: Iterable[ast.stmt]) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield top-level statements, and whether they run: those for type checkers do not."""
    for statement in body:
        if isinstance(statement, ast.If) and _is_for_types(statement.test):
            yield from ((inner, False) for inner, _ in _statements(statement.body))
            yield from _statements(statement.orelse)
        elif not _is_idle(statement) and not _is_main_guard(statement):
            yield statement, True


def _is_for_types(test: ast.expr) -> bool:
    return _dotted(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in {
        node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)
    }


def _is_idle(statement: ast.AST) -> bool:
    """Tell whether a statement does nothing: a docstring, `...`, `pass`."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def _is_compound(statement: ast.stmt) -> bool:
    return hasattr(statement, "body") and not isinstance(statement, _Function | ast.ClassDef)


def _bound(statement: ast.AST) -> list[str]:
    """Return the names that a statement binds in the scope that it stands in."""
    if isinstance(statement, _Function | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Name):
        return [statement.id] if isinstance(statement.ctx, ast.Store) else []
    if isinstance(statement, _OWN_SCOPE):
        return []
    return [name for child in ast.iter_child_nodes(statement) for name in _bound(child)]


def _take_imports(module: Module, statement: _Import, package: str, executed: bool) -> None:
    targets = _targets(statement, package)
    module.stars += [target.module for name, target in targets if name == "*"]
    module.imports |= {name: target for name, target in targets if name != "*"}
    if not executed:
        return
    if isinstance(statement, ast.Import):
        module.executed |= {alias.name for alias in statement.names}
    for _, target in targets:  # an attribute may be a module of its own
        module.executed |= {target.module, f"{target.module}.{target.attribute}"}


def _targets(statement: _Import, package: str) -> list[tuple[str, Target]]:
    """Return what an import binds, name by name."""
    if isinstance(statement, ast.Import):
        return [
            (a.asname, Target(a.name))
            if a.asname
            else (a.name.partition(".")[0], Target(a.name.partition(".")[0]))
            for a in statement.names
        ]
    parts = package.split(".")
    base = parts[: len(parts) + 1 - statement.level] if statement.level else []
    source = ".".join([*base, *([statement.module] if statement.module else [])])
    return [(a.asname or a.name, Target(source, a.name)) for a in statement.names]


def _definition(statements: list[ast.stmt], package: str) -> Definition:
    found = _Names()
    digest = hashlib.sha256()
    for statement in statements:
        digest.update(ascii(_normal(statement, found, scope="module")).encode())
    imports = {name: t for node in found.imports for name, t in _targets(node, package)}
    decorators = frozenset(name for one in statements for name in _decorators(one))
    return Definition(digest.hexdigest(), frozenset(found.references), imports, decorators)


def _decorators(node: ast.AST) -> list[str]:
    """Return the names of the decorators of a function or class."""
    outer = [d.func if isinstance(d, ast.Call) else d for d in getattr(node, "decorator_list", ())]
    return [name for one in outer if (name := _dotted(one))]


@dataclass
class _Names:
    """What is met while a normal form is made."""

    references: set[str] = field(default_factory=set)
    imports: list[_Import] = field(default_factory=list)


def _normal(node: object, found: _Names, scope: str, silent: bool = False) -> object:
    """Return the normal form of a node as nested tuples.

    Args:
        node: a syntax tree, a list of some, or a plain value.
        found: takes up names and imports.
        scope: `module`, `class`, `dataclass` or `function`: what the node stands in directly.
        silent: leave out the words of texts, inside `raise`.
    """
    if isinstance(node, list):
        kept = (_normal(one, found, scope, silent) for one in node if not _is_idle(one))
        return tuple(one for one in kept if one != ())
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, _Import):
        found.imports.append(node)
        return ()
    if isinstance(node, ast.AnnAssign) and scope in ("module", "function"):
        return _without_hint(node, found, scope)
    if isinstance(node, ast.Name | ast.Attribute) and (name := _dotted(node)):
        found.references.add(name)
        return ("Name", name)
    silent = silent or isinstance(node, ast.Raise)
    if silent and isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ("Constant",)
    if isinstance(node, ast.JoinedStr):
        return ("JoinedStr", *_joined(node, found, scope, silent))
    inner = _scope_within(node, scope)
    hints = _Names() if scope == "dataclass" else found
    fields = (
        (name, _normal(value, hints if name == "annotation" else found, inner, silent))
        for name, value in sorted(ast.iter_fields(node))
        if name not in _unread(node) and value is not None and value != []
    )
    return (type(node).__name__, *(pair for pair in fields if pair[1] != ()))


def _joined(node: ast.JoinedStr, found: _Names, scope: str, silent: bool) -> Iterator[Any]:
    """Yield the parts of an f-string; neighbouring texts, which versions cut apart, as one."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += "" if silent else str(part.value)
            continue
        if text:
            yield text
        text = ""
        yield _normal(part, found, scope, silent)
    if text:
        yield text


def _scope_within(node: ast.AST, scope: str) -> str:
    if isinstance(node, ast.ClassDef):
        kinds = {name.rpartition(".")[2] for name in _decorators(node)}
        return "dataclass" if "dataclass" in kinds else "class"
    return "function" if isinstance(node, _Function | ast.Lambda) else scope


def _unread(node: ast.AST) -> tuple[str, ...]:
    """Return the fields of a node that say nothing about what it does."""
    if isinstance(node, _Function):
        return ("returns", "type_comment")
    if isinstance(node, ast.arg):
        return ("annotation", "type_comment")
    return ("ctx", "type_comment", "kind")


def _without_hint(node: ast.AnnAssign, found: _Names, scope: str) -> object:
    if node.value is None:
        return ()
    return _normal(ast.Assign(targets=[node.target], value=node.value), found, scope)


def _dotted(node: ast.AST) -> str | None:
    """Return `a.b.c` of a name with attributes; None of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := _dotted(node.value)):
        return f"{inner}.{node.attr}"
    return None
