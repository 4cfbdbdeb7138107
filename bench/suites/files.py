"""Suite files: YAML files of this package, of other packages, or by path.

An entry point of the group `purer_bench.suites` names a folder of YAML files by its module
(`mine = "my_package.suites"`) or one file in it (`mine = "my_package.suites:mine.yaml"`). A suite
has the name of its file.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from bench import registry
from bench.errors import BenchError, unknown_name

SUITES = Path(__file__).parent / "library"


def suite_files() -> dict[str, Path]:
    """Return the file of each suite by its name: those of this package, then registered ones.

    Raises:
        BenchError: an entry point names no YAML file, or two files have one name.
    """
    found = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    for name in registry.names("suite"):
        for path in _offered_by(registry.entry("suite", name)):
            if path.stem in found:
                raise BenchError(
                    f"suite '{path.stem}' is both '{found[path.stem]}' and '{path}'; names are "
                    "unique: rename one, or uninstall the package that offers it"
                )
            found[path.stem] = path
    return found


def _offered_by(point: EntryPoint) -> list[Path]:
    """Return the YAML files that an entry point names; imports the parents of its module only."""
    try:
        spec = find_spec(point.module)
    except ImportError:
        spec = None
    folders = [Path(one) for one in (spec.submodule_search_locations or ())] if spec else []
    pattern = point.attr or "*.yaml"
    if files := sorted(path for folder in folders for path in folder.glob(pattern)):
        return files
    raise BenchError(
        f"entry point '{point.name}' of purer_bench.suites names '{point.value}', where no YAML "
        "file is; let it name a package with YAML files, or one of them after a colon"
    )


def suite_distribution(name: str) -> tuple[str, str]:
    """Return name and version of the distribution that a suite comes from."""
    for label in registry.names("suite"):
        if any(path.stem == name for path in _offered_by(registry.entry("suite", label))):
            return registry.distribution_of("suite", label)
    return registry.own_distribution()


def suite_names() -> list[str]:
    """Return the names of all suites, sorted."""
    return sorted(suite_files())


def suite_file(name: str) -> Path:
    """Return the file of a suite, by its name or by a path to a YAML file.

    Raises:
        BenchError: there is no such suite, or no such file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BenchError(f"suite file '{name}' is not there; name a YAML file or a suite")
        return path
    files = suite_files()
    if name not in files:
        raise unknown_name("suite", name, files)
    return files[name]
