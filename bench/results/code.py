"""Digests of code: of some functions and classes, with all first-party code that they can reach.

The closure starts at given functions and classes. It follows the names that they use, through
imports at the top of a module and inside functions and through names that packages re-export, to
every function, class and constant of first-party code. Only the standard library is used, and no
module is imported to be read.

The digest does not depend on comments, layout, docstrings, type hints of functions, texts of error
messages (see `bench.results.syntax`), nor on the module that holds a definition: a module can be
moved or divided. Names that a run looks up by strings are not followed; the caller therefore names
the classes of plug-ins (`bench.results.codebase`). Of a third-party package only the name counts;
records hold the versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from bench.results.syntax import Definition, Module, Target, read_module

ROUNDS = 6
"""Steps of use within which a difference tells two definitions of equal text apart."""
EFFECTS = "<top level>"
SHORT = 12
"""Digits of a file's digest, which only serves to name the files that changed."""
Place = tuple[str, str]
"""A definition's module and name."""


class Sources(Protocol):
    """The sources of first-party modules.

    `packages` are the top-level packages and modules that count as first-party.
    """

    packages: frozenset[str]

    def read(self, module: str) -> tuple[str, str] | None:
        """Return the path (`bench/seeds.py`) and the text of a module, None where there is none."""


class InstalledSources:
    """The sources of packages as this process would import them.

    Args:
        packages: their top-level names.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)

    def read(self, module: str) -> tuple[str, str] | None:
        """Return the path and the text of a module; see `Sources`."""
        top, *inner = module.split(".")
        spec = find_spec(top) if top in self.packages else None
        if spec is None:
            return None
        folders = [Path(folder).parent for folder in spec.submodule_search_locations or ()]
        if not folders and spec.origin:
            folders = [Path(spec.origin).parent]
        for folder in folders:
            for path in _files("/".join([top, *inner])):
                if (folder / path).is_file():
                    return path, (folder / path).read_text(encoding="utf-8")
        return None


@dataclass
class StoredSources:
    """Sources by their paths, such as those of a commit."""

    packages: frozenset[str]
    texts: Mapping[str, str]

    def read(self, module: str) -> tuple[str, str] | None:
        """Return the path and the text of a module; see `Sources`."""
        paths = _files(module.replace(".", "/"))
        return next(((path, self.texts[path]) for path in paths if path in self.texts), None)


def _files(path: str) -> tuple[str, str]:
    return f"{path}/__init__.py", f"{path}.py"


@dataclass(frozen=True)
class Closure:
    """The code that can be reached from some names.

    `digest` is of all of it; `files` are digests of what is reached in each file, by the file's
    path, to name those that changed; `definitions` likewise by `path:name`.
    """

    digest: str
    files: dict[str, str]
    definitions: dict[str, str]


class Library:
    """The first-party code of some sources; each module is read once, when it is reached."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._modules: dict[str, Module | None] = {}
        self._paths: dict[str, str] = {}
        self._used: dict[Place, dict[str, list[Place | str]]] = {}

    def closure(self, entries: Iterable[str], without: Iterable[str] = ()) -> Closure:
        """Return the code that can be reached from some names.

        Args:
            entries: `package.module:name`, or `package.module` for a whole module.
            without: likewise; code that is reached only through these is left out.

        Raises:
            LookupError: first-party code holds none of that name.
        """
        reached: dict[Place, Definition] = {}
        left_out = {place for entry in without for place in self._entry(entry)}
        todo = [place for entry in sorted(set(entries)) for place in self._entry(entry)]
        seen_modules: set[str] = set()
        while todo:
            place = todo.pop()
            if place in reached or place in left_out:
                continue
            reached[place] = self._definition(place)
            uses = self._uses(place, reached[place]).values()
            todo += [p for places in uses for p in places if isinstance(p, tuple)]
            imported = {target.module for target in reached[place].imports.values()}
            todo += self._effects({place[0], *imported}, seen_modules)
        return self._summary(reached)

    def _entry(self, entry: str) -> list[Place]:
        module, _, name = entry.partition(":")
        target = Target(module, name.partition(".")[0] or None)
        places = self._follow(target, ())
        if not places:
            raise LookupError(entry)
        return [place for place in places if isinstance(place, tuple)]

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            first_party = name.partition(".")[0] in self._sources.packages
            found = self._sources.read(name) if first_party else None
            self._modules[name] = None
            if found is not None:
                self._paths[name] = found[0]
                is_package = found[0].endswith("/__init__.py")
                package = name if is_package else name.rpartition(".")[0]
                self._modules[name] = read_module(found[1], package)
        return self._modules[name]

    def _definition(self, place: Place) -> Definition:
        module = self._modules[place[0]]
        if module is None:
            raise LookupError(place[0])
        if place[1].startswith(EFFECTS):
            return module.effects[int(place[1].removeprefix(EFFECTS))]
        return module.definitions[place[1]]

    def _uses(self, place: Place, definition: Definition) -> dict[str, list[Place | str]]:
        """Return what each name in a definition refers to: first-party places, or a dotted name."""
        if place in self._used:
            return self._used[place]
        found = self._used[place] = {}
        for reference in sorted(definition.references):
            first, *rest = reference.split(".")
            target = definition.imports.get(first)
            places = self._follow(target, rest) if target else self._top(place[0], first, rest)
            if places:
                found[reference] = places
        return found

    def _follow(self, target: Target, rest: Iterable[str]) -> list[Place | str]:
        """Return what an imported name with attributes refers to."""
        names = [*([target.attribute] if target.attribute else []), *rest]
        if target.module.partition(".")[0] not in self._sources.packages:
            return [".".join([target.module, *names])]
        if not names:
            return self._whole(target.module)
        return self._top(target.module, names[0], names[1:])

    def _top(self, name: str, first: str, rest: Iterable[str]) -> list[Place | str]:
        """Return what a name at the top of a module, with attributes, refers to."""
        module = self._module(name)
        if module is None:
            return self._submodule(name, first, rest)
        found: list[Place | str] = [(name, first)] if first in module.definitions else []
        if (target := module.imports.get(first)) and target != Target(name, first):
            found += self._follow(target, rest)
        for star in [] if found else module.stars:
            found += self._top(star, first, rest)
        return found or self._submodule(name, first, rest)

    def _submodule(self, name: str, first: str, rest: Iterable[str]) -> list[Place | str]:
        if self._module(f"{name}.{first}") is not None:
            return self._follow(Target(f"{name}.{first}"), rest)
        module = self._module(name)
        return self._whole(name) if module and "__getattr__" in module.definitions else []

    def _whole(self, name: str) -> list[Place | str]:
        """Return all definitions of a module, for names that are known only at run time."""
        module = self._module(name)
        return [(name, one) for one in sorted(module.definitions)] if module else []

    def _effects(self, names: Iterable[str], seen: set[str]) -> Iterator[Place]:
        """Yield the side effects of importing modules and all that they import.

        These are statements at the top of a module, and definitions with a first-party decorator,
        which may register them.
        """
        todo = [*names]
        while todo:
            name = todo.pop()
            if name in seen or name.partition(".")[0] not in self._sources.packages:
                continue
            seen.add(name)
            todo.append(name.rpartition(".")[0])
            module = self._module(name)
            if module is None:
                continue
            todo += module.executed
            yield from ((name, f"{EFFECTS}{i}") for i in range(len(module.effects)))
            for defined, definition in module.definitions.items():
                for decorator in definition.decorators:
                    first, *rest = decorator.split(".")
                    if any(isinstance(place, tuple) for place in self._top(name, first, rest)):
                        yield name, defined

    def _summary(self, reached: Mapping[Place, Definition]) -> Closure:
        uses = {place: self._uses(place, one) for place, one in reached.items()}
        own = {
            place: _digest([one.sha256, _foreign(uses[place])]) for place, one in reached.items()
        }
        labels = dict(own)
        for _ in range(ROUNDS):
            labels = {place: _digest([own[place], _labelled(uses[place], labels)]) for place in own}
        definitions = {f"{self._paths[m]}:{n}": own[m, n] for m, n in sorted(reached)}
        files: dict[str, list[str]] = {}
        for name, digest in definitions.items():
            files.setdefault(name.partition(":")[0], []).append(digest)
        return Closure(
            _digest(sorted(set(labels.values()))),
            {path: _digest(sorted(digests))[:SHORT] for path, digests in files.items()},
            definitions,
        )


def _foreign(uses: Mapping[str, list[Place | str]]) -> list[tuple[str, str]]:
    """Return the names that refer to third-party objects, with the dotted name of each object."""
    return [(name, p) for name, places in uses.items() for p in places if isinstance(p, str)]


def _labelled(uses: Mapping[str, list[Place | str]], labels: Mapping[Place, str]) -> list[Any]:
    return [
        (name, sorted(labels[p] for p in places if isinstance(p, tuple) and p in labels))
        for name, places in uses.items()
    ]


def _digest(value: object) -> str:
    """Return the SHA-256 (hex) of nested lists, tuples and texts; the same on every version."""
    return hashlib.sha256(ascii(value).encode()).hexdigest()


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that differ between the `files` of two closures, without moved ones."""
    both = [path for path in before if path in now and before[path] != now[path]]
    kept = set(before.values()) & set(now.values())
    alone = {**before, **now}.items() - (before.items() & now.items())
    return sorted(both or {path for path, digest in alone if digest not in kept})
