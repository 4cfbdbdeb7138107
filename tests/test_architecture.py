"""Who may import whom, and which calls are banned: read from the source, not from running it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("bench", "purer", "baselines", "reports")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
NUMERIC = {"torch", "numpy", "scipy", "pydantic"}
BASELINES = {
    "baselines",
    "bench.inversion.augmentation",
    "bench.training.curriculum",
    "bench.inversion.losses",
    "bench.inversion.optimise",
}
CONTRACT = ("bench.contract", "bench.nets", "bench.learners", "bench.errors")
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


def imported(path: Path) -> set[str]:
    """Return the absolute names of all modules that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, prefixes: tuple[str, ...] | set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def test_every_room_has_files() -> None:
    for room in ROOMS:
        assert sum(path.is_relative_to(ROOT / room) for path in FILES) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    standard = set(sys.stdlib_module_names)
    foreign = {n for n in imported(path) if n.partition(".")[0] not in standard}
    if room == "bench":
        assert not {n for n in foreign if within(n, {"purer", "baselines", "reports"})}
    elif room == "reports":
        allowed = ("bench.results", "bench.stats", "bench.seeds", "bench.errors", "reports")
        outside = {n for n in foreign if within(n, {"bench", "purer", "baselines", "torch"})}
        assert not {n for n in outside if not within(n, allowed)}
    else:
        own = {"purer"} if room == "purer" else BASELINES
        assert not {n for n in foreign if not within(n, NUMERIC | own | set(CONTRACT))}
    if path != ROOT / "bench" / "results" / "mlflow.py":
        assert not {n for n in foreign if within(n, {"mlflow"})}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_global_random_state_is_touched_in_one_file_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {
        (ast.unparse(node.func.value), node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    found = {call for call in calls if call in BANNED_CALLS or call[0] == "random"}
    if path == ROOT / "bench" / "seeds.py":
        assert found, "the ban would not notice the one file that is allowed to"
    else:
        assert not found


def test_no_unsafe_loading() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert flags.get("weights_only") == "True", path
