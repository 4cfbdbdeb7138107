"""Who may import whom, and which calls are banned: read from the source, not from running it."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "purer", "baselines", "reports")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
NUMERIC = {"torch", "numpy", "scipy", "pydantic"}
OPEN_TO_ALL = {"bench.errors", "bench.paths", "bench.processes", "bench.leases"}
PLUG_IN = {"bench.contract", "bench.nets", "bench.learners", "bench.training", "bench.inversion"}
MAY_IMPORT: dict[str, set[str]] = {
    # Layers from the bottom up: folder or module -> the first-party modules below it that it may
    # import. Imports inside functions and for types count as well.
    "bench.errors": set(),
    "bench.paths": set(),
    "bench.processes": set(),
    "bench.leases": set(),
    "bench.seeds": set(),
    "bench.registry": set(),
    "bench": {"bench.api"},  # for types; at run time when a name is used
    "bench.contract": set(),
    "bench.results": {
        *{"bench.contract", "bench.stats", "bench.seeds"},
        "bench.registry",  # which code a plug-in's name stands for
    },
    "bench.stats": {"bench.contract"},
    "bench.stops": set(),
    "bench.checkpoints": {"bench.results.files", "bench.results.maker", "bench.stops"},
    "bench.nets": {"bench.contract", "bench.registry"},
    "bench.data": {"bench.contract", "bench.registry", "bench.results.files", "bench.seeds"},
    "bench.learners": {"bench.contract", "bench.nets"},
    "bench.inversion": {"bench.contract", "bench.nets"},
    "bench.training": {"bench.contract", "bench.nets", "bench.learners"},
    "bench.teachers": {
        *{"bench.contract", "bench.registry", "bench.results.files", "bench.nets", "bench.data"},
        *{"bench.results.maker", "bench.seeds", "bench.checkpoints"},
    },
    "bench.suites": {
        *{"bench.contract", "bench.registry", "bench.results.files", "bench.data.sources"},
        "bench.nets.build",  # names of networks; torch when one is built
    },
    "bench.execute": {
        *{"bench.contract", "bench.registry", "bench.results", "bench.stats", "bench.seeds"},
        *{"bench.nets", "bench.data", "bench.learners", "bench.training", "bench.inversion"},
        *{"bench.teachers", "bench.suites", "bench.checkpoints", "bench.stops"},
    },
    "bench.verify": {  # what records are held against: drawn tasks, named constants, sources
        *{"bench.contract", "bench.registry", "bench.results", "bench.stats", "bench.data"},
        "bench.suites",
    },
    "bench.exports": {"bench.registry", "bench.results", "bench.data"},
    "bench.testing": {
        *{"bench.contract", "bench.registry", "bench.seeds", "bench.nets", "bench.data"},
        *{"bench.learners", "bench.suites"},
    },
    "bench.api": {
        *{"bench.contract", "bench.registry", "bench.results", "bench.stats", "bench.seeds"},
        *{"bench.nets", "bench.data", "bench.learners", "bench.teachers", "bench.suites"},
        *{"bench.execute", "bench.checkpoints"},
    },
    "bench.cli": {"bench"},
    "bench.__main__": {"bench.cli.main"},  # python -m bench
    "purer": PLUG_IN,
    "baselines": PLUG_IN,
    "reports": {
        *{"bench.results.compare", "bench.results.files", "bench.results.find"},
        *{"bench.results.frame", "bench.results.memo", "bench.results.paired"},
        *{"bench.results.record", "bench.results.select", "bench.results.store"},
        "bench.stats",
        *{"bench.results.community", "bench.results.places", "bench.results.predictions"},
        "bench.registry",  # tables and figures of other packages
    },
}
NO_TORCH = (
    "bench.results",
    "bench.stats",
    "bench.suites",
    "bench.verify",
    "bench.exports",
    "reports",
)
LOAD_A_COMPILER = {"torch.utils.flop_counter", "torch._dynamo", "torch._inductor", "triton"}
BANNED_CALLS = {
    ("torch", "manual_seed"),
    ("torch.cuda", "manual_seed_all"),
    ("np.random", "seed"),
    ("np.random", "rand"),
    ("np.random", "randn"),
    ("np.random", "randint"),
    ("np.random", "choice"),
    ("np.random", "permutation"),
    ("np.random", "shuffle"),
}


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all parts of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Return the absolute names of all modules that a file imports anywhere."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def module_of(path: Path) -> str:
    """Return the dotted name of a file."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def layer_of(module: str) -> str:
    """Return the row of the import table that a module belongs to."""
    rows = [row for row in MAY_IMPORT if within(module, {row})]
    return max(rows, key=len)


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def first_party(path: Path) -> frozenset[str]:
    """Return the modules of this project that a file imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        found |= {next((one for one in names if one in MODULES), "")}
    return frozenset(found - {"", module_of(path)})


def test_every_package_has_files() -> None:
    for package in PACKAGES:
        assert sum(path.is_relative_to(ROOT / package) for path in FILES) >= 3


def test_import_table_is_acyclic() -> None:
    edges = {
        row: {layer_of(one) for one in allowed} - {row, "bench"} | OPEN_TO_ALL - {row}
        for row, allowed in MAY_IMPORT.items()
        if row not in OPEN_TO_ALL
    }
    list(TopologicalSorter(edges).static_order())  # raises where there is a circle


def test_no_circle_among_files() -> None:
    edges = {module: first_party(path) for module, path in MODULES.items()}
    list(TopologicalSorter(edges).static_order())


def test_every_allowed_import_is_used() -> None:
    """A row that allows what nobody imports is not the table of this house."""
    used: dict[str, set[str]] = {row: set() for row in MAY_IMPORT}
    for module, path in MODULES.items():
        used[layer_of(module)] |= first_party(path)
    for row, allowed in MAY_IMPORT.items():
        idle = {one for one in allowed if not any(within(name, {one}) for name in used[row])}
        assert not idle - PLUG_IN, f"{row} may import {idle}, and does not"


def test_files_import_only_what_their_layer_may() -> None:
    assert {str(path.relative_to(ROOT)): one for path in FILES if (one := not_allowed(path))} == {}


def not_allowed(path: Path) -> set[str]:
    """Return the modules that a file imports and may not."""
    row = layer_of(module_of(path))
    allowed = MAY_IMPORT[row] | OPEN_TO_ALL | {row}
    wrong = {one for one in first_party(path) if not within(one, allowed)}
    names = imported(path)
    if row in ("purer", "baselines"):
        standard = set(sys.stdlib_module_names) | set(PACKAGES)
        foreign = {name for name in names if name.partition(".")[0] not in standard}
        wrong |= {name for name in foreign if not within(name, NUMERIC)}
    if row in NO_TORCH:
        wrong |= {name for name in names if within(name, {"torch", "torchvision"})}
    if path != ROOT / "bench" / "results" / "mlflow.py":
        wrong |= {name for name in names if within(name, {"mlflow"})}
    return wrong


def test_nobody_imports_the_command_line() -> None:
    for path in FILES:
        cli, entrance = ROOT / "bench" / "cli", ROOT / "bench" / "__main__.py"
        if path != entrance and not path.is_relative_to(cli):
            assert not {one for one in first_party(path) if within(one, {"bench.cli"})}


def test_global_random_state_is_touched_in_one_file_only() -> None:
    """In the one that is allowed to, so that the ban is known to notice it."""
    touching = {str(path.relative_to(ROOT)) for path in FILES if banned_calls(path)}
    assert touching == {"bench/seeds.py"}


def banned_calls(path: Path) -> set[tuple[str, str]]:
    """Return the calls of a file that draw from a global stream, or seed it."""
    calls = {
        (ast.unparse(node.func.value), node.func.attr)
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    return {call for call in calls if call in BANNED_CALLS or call[0] == "random"}


def test_no_unsafe_loading() -> None:
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert flags.get("weights_only") == "True", path


def test_what_loads_a_compiler_is_imported_in_functions_only() -> None:
    """A plan needs none, and one that it had loaded would print 30 lines at its end."""
    for path in FILES:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}
        names |= {a.name for node in body if isinstance(node, ast.Import) for a in node.names}
        assert not {one for one in names if within(one, LOAD_A_COMPILER)}, path
