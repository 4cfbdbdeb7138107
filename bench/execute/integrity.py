"""Whether what is stored is what was written: the content of every file that is read back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.data import cache as decoded
from bench.errors import BenchError, file_problem
from bench.results.files import file_sha256, read_checked
from bench.results.store import DONE, damage
from bench.teachers.cards import (
    CARD,
    WEIGHTS,
    cached_index,
    check_digest,
    pool_names,
    pools_folder,
    read_card,
    trained_card,
)

Check = Callable[[Path], str | None]
"""Says what is wrong with a file or folder, None where it is intact."""


def damaged(cache: Path, runs: Path) -> list[str]:
    """Return a line for each thing in a cache and a folder of runs that is not what was written.

    Nothing is mended: a run makes again what it needs.
    """
    return [line for path, check in _stored(cache, runs) if (line := _line(path, check))]


def _stored(cache: Path, runs: Path) -> Iterator[tuple[Path, Check]]:
    """Yield everything that is stored, and what checks it."""
    kinds: tuple[tuple[Path, str, Check], ...] = (
        (cache, "digests.json", _checked),
        (cache, "plans/*.json", _checked),
        (cache, "similarity/*.json", _checked),
        (cache, "data/[!.]*/", lambda path: decoded.problem(path, deep=True)),
        (cache, f"teachers/[!.]*/{CARD}", _teacher),
        (cache, f"teachers/[!.]*/{WEIGHTS}", _has_card),
        (cache, f"fits/*/{DONE}", lambda path: _sealed(path.parent)),
        (cache, "*/**/checkpoint-*.pt", _checkpoint),
        (runs, f"*/*/{DONE}", lambda path: _sealed(path.parent)),
        (runs, "*/*/checkpoint-*.pt", _checkpoint),
        (runs, "*/report/**/.*.key", _figure),
        (runs, "*/report/.resampled.json", _checked),
    )
    for root, pattern, check in kinds:
        yield from ((path, check) for path in sorted(root.glob(pattern)))
    for name in pool_names(cache):
        yield pools_folder(cache) / name, lambda path: _pool(cache, path.name)


def _line(path: Path, check: Check) -> str | None:
    try:
        return check(path)
    except BenchError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except OSError as error:
        return file_problem(error)


def _checked(path: Path) -> str | None:
    read_checked(path)
    return None


def _figure(key: Path) -> str | None:
    """Check a figure by what is kept beside it of its files."""
    for name, digest in read_checked(key)["files"].items():
        if file_sha256(key.with_name(name)) != digest:
            return f"{key.with_name(name)} is damaged: it is not what was written"
    return None


def _sealed(folder: Path) -> str | None:
    problem = damage(folder)
    return problem and f"{folder}: {problem}"


def _teacher(path: Path) -> str | None:
    weights = path.with_name(WEIGHTS)
    if file_sha256(weights) == trained_card(path.parent)["sha256"]:
        return None
    return f"{weights} is damaged: it is not what was written"


def _has_card(path: Path) -> str | None:
    card = path.with_name(CARD)
    return None if card.exists() else f"{card} is missing"


def _checkpoint(path: Path) -> str | None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return None if digest in path.name else f"{path} is damaged: it is not what was written"


def _pool(cache: Path, name: str) -> str | None:
    folder = pools_folder(cache) / name
    for stored in cached_index(cache, name).teachers:
        read_card(folder, stored)
        check_digest(folder / stored.folder / WEIGHTS, stored.weights_sha256)
    return None
