"""The code that makes teachers, fits and records, as it is installed or as it was at a commit.

Classes of plug-ins are found through entry points, the functions of the harness through the names
below. No module is imported.
"""

from __future__ import annotations

import functools
import io
import json
import re
import tarfile
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution as Installed
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bench import registry
from bench.results.code import InstalledSources, Library, StoredSources
from bench.results.files import content_hash, file_sha256
from bench.results.maker import Described, Traits, changes, git_bytes, git_state, named
from bench.results.record import Code, Distribution, Record

KINDS: tuple[registry.Kind, ...] = get_args(registry.Kind)
UNCALIBRATED = "none"
ROOT = Path(__file__).resolve().parents[2]
TEACHER = ("bench.teachers.train:train_teacher", "bench.teachers.store:train_planned")
"""Functions that make a teacher's weights from its specification, which holds the recipe."""
PLANNING = ("bench.teachers.pool:plan_pool", "bench.execute.scenario:plan_teachers")
"""Functions that decide which teachers a cell's pool has, and their recipes."""
FIT = (
    "bench.execute.context:CellContext",
    "bench.execute.scenario:meta_spec",
    "bench.execute.scenario:scenario_data",
    "bench.nets.precision:computing_in",
    "bench.seeds:seed_global_state",
    "bench.teachers.adapt:adapt_pool",
)
"""What prepares a fit: its context, its data, seeds and precision."""
EVALUATION = ("bench.execute.evaluate:evaluate", "bench.execute.evaluate:task_lists")
"""Evaluation, which belongs to a fit only if validation selects its checkpoint."""
SCORING = ("bench.execute.testing:score_cell",)
"""Test tasks, calibration, evaluation."""
OTHER_FIT, NO_FIT = "other_fit", "none"
"""The setting of a method that names the method whose fit it starts from; its value for none."""
OWN_IMAGES = "bench.data.sets.image_folder:ImageFolder"
"""The reader of a user's own images."""


PlugIn = tuple[registry.Kind, str]
"""A plug-in's kind and name."""


def _methods(cell: Described) -> set[PlugIn]:
    """Return the cell's method, and the one whose fit its fit starts from, if it names one."""
    names = (cell.method, cell.method_config.get(OTHER_FIT, NO_FIT))
    return {("method", str(name)) for name in names if name != NO_FIT}


class CodeBase:
    """First-party code, of which digests are computed.

    Args:
        library: the code.
        entry: returns `module:name` of a plug-in, None where the code offers none of that name.
        distribution: returns the distribution of a plug-in, None where it is not known.
        locate: returns the place of a function or class of the harness in this code, None where it
            has none.
    """

    def __init__(
        self,
        library: Library,
        entry: Callable[[PlugIn], str | None],
        distribution: Callable[[PlugIn], Distribution | None] = lambda plug_in: None,
        locate: Callable[[str], str | None] = lambda name: name,
    ) -> None:
        self._library = library
        self._entry, self._distribution, self._locate = entry, distribution, locate
        self._known: dict[tuple[frozenset[PlugIn], frozenset[str], bool], Code] = {}

    def teacher(self, architecture: str) -> Code:
        """Return the code that makes a teacher of an architecture."""
        return self._code({("net", architecture)}, TEACHER)

    def fit(self, cell: Described, method: type[Traits]) -> Code:
        """Return the code that makes a cell's fit, as far as the fit depends on it.

        All cells that share a fit have the same code: a learner does not count if fits do not
        depend on it, nor does evaluation if no checkpoint is selected by validation.
        """
        plug_ins: set[PlugIn] = {("net", cell.net), *_methods(cell)}
        plug_ins |= {("net", net) for net in (cell.architectures if method.uses_pool else ())}
        if "learner" in method.fit_depends_on:
            plug_ins.add(("learner", cell.learner))
        return self._code(plug_ins, FIT, () if method.validates else EVALUATION)

    def cell(self, cell: Described, trains: bool) -> Code:
        """Return the code that makes a cell's record.

        Args:
            cell: its configuration, or its record.
            trains: whether its teachers are trained here, by the protocol's recipe.
        """
        plug_ins: set[PlugIn] = {("learner", cell.learner), *_methods(cell)}
        if cell.calibration != UNCALIBRATED:
            plug_ins.add(("calibration", cell.calibration))
        plug_ins |= {("net", net) for net in (cell.net, *cell.architectures)}
        plug_ins |= {("dataset", name) for name in cell.datasets}
        return self._code(plug_ins, (*FIT, *SCORING, *((*TEACHER, *PLANNING) if trains else ())))

    def _code(
        self, plug_ins: set[PlugIn], harness: Iterable[str], without: Iterable[str] = ()
    ) -> Code:
        key = frozenset(plug_ins), frozenset(harness), bool(without)
        if key not in self._known:
            entries = [self._entry(one) for one in sorted(plug_ins)]
            entries += [self._locate(name) for name in harness]
            left_out = [name for one in without if (name := self._locate(one))]
            found = self._library.closure([one for one in entries if one], left_out)
            came_from = {d.name: d for one in plug_ins if (d := self._distribution(one))}
            ordered = [came_from[name] for name in sorted(came_from)]
            self._known[key] = Code(digest=found.digest, files=found.files, distributions=ordered)
        return self._known[key]


@functools.cache
def installed_code() -> CodeBase:
    """Return the code that this process runs."""
    library = Library(InstalledSources(first_party()))
    return CodeBase(library, _installed_entry, _installed_from)


def first_party() -> frozenset[str]:
    """Return the top-level packages of the harness and of all distributions with plug-ins."""
    found = {"bench"}
    for point in _points():
        found.add(point.module.partition(".")[0])
        listed = point.dist.read_text("top_level.txt") if point.dist else None
        found |= set((listed or "").split())
    return frozenset(found)


def sources_digest() -> str:
    """Return a digest of all files of first-party code and of all entry points; fast."""
    names = sorted(f"{point.group} {point.name}={point.value}" for point in _points())
    files = {}
    for package in sorted(first_party()):
        spec = find_spec(package)
        folders = (spec and spec.submodule_search_locations) or []
        for folder in folders:
            for path in sorted(Path(folder).rglob("*.py")):
                files[f"{package}/{path.relative_to(folder)}"] = file_sha256(path)
        if spec and spec.origin and not folders:  # a module that is a file of its own
            files[package] = file_sha256(Path(spec.origin))
    return content_hash([files, names])


@functools.cache
def _points() -> tuple[EntryPoint, ...]:
    by_kind = [registry.offered(kind) for kind in KINDS]
    return tuple(points[name] for points in by_kind for name in sorted(points))


def _installed_entry(plug_in: PlugIn) -> str | None:
    kind, name = plug_in
    if name in (points := registry.offered(kind)):
        return points[name].value
    return OWN_IMAGES if kind == "dataset" else None  # a network of another library is none of ours


@functools.cache
def _installed_from(plug_in: PlugIn) -> Distribution | None:
    kind, name = plug_in
    point = registry.offered(kind).get(name)
    if point is None or (found := point.dist) is None:
        return None
    return Distribution(name=found.name, version=found.version, commit=_commit_of(found))


def _commit_of(distribution: Installed) -> str | None:
    """Return the commit that a distribution was installed from, or that its folder stands at."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        return origin["vcs_info"].get("commit_id")
    if origin.get("dir_info", {}).get("editable"):
        return git_state(Path(url2pathname(urlsplit(origin["url"]).path)))[0]
    return None


@functools.cache
def code_at(commit: str) -> CodeBase | None:
    """Return the code of a commit of this repository; None where the commit cannot be read."""
    packed = git_bytes(ROOT, "archive", "--format=tar", commit, "--", "*.py", "pyproject.toml")
    if packed is None:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        texts = {
            member.name: file.read().decode("utf-8")
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    offered = tomllib.loads(texts.pop("pyproject.toml"))["project"]["entry-points"]
    packages = {path.partition("/")[0] for path in texts if path.endswith("/__init__.py")}
    sources = StoredSources(frozenset(packages - {"tests"}), texts)

    def entry(plug_in: PlugIn) -> str | None:
        return offered.get(f"purer_bench.{plug_in[0]}s", {}).get(plug_in[1])

    return CodeBase(Library(sources), entry, locate=functools.partial(_locate, texts))


def code_of_commit(record: Record, trains: bool) -> Code | None:
    """Return the code of the clean commit that made a record; None where that is not known.

    Args:
        record: one that was written before code was kept.
        trains: as `CodeBase.cell` takes it.
    """
    environment = record.environment
    if environment.git_commit is None or environment.git_dirty is not False:
        return None
    base = code_at(environment.git_commit)
    return base.cell(record, trains) if base else None


def changed_since(record: Record) -> list[str] | None:
    """Return the files whose code differs from what made a record; None if that is not known."""
    pool = record.pool
    trained = (pool is not None and pool.name is None,)
    either = trained if record.status == "done" else (True, False)  # others do not say it
    made_by = [(record.code or code_of_commit(record, trains), trains) for trains in either]
    found = [
        changes(code, installed_code().cell(record, trains)) for code, trains in made_by if code
    ]
    return min(found, key=len, default=None)


def changes_named(record: Record) -> str:
    """Return the same in words: `none`, `unknown`, or the first of the files."""
    changed = changed_since(record)
    return "unknown" if changed is None else named(changed) or "none"


def _locate(texts: dict[str, str], place: str) -> str | None:
    """Return where another commit's sources define a function or class of the present harness."""
    module, name = place.split(":")
    top = re.compile(rf"^(def|class) {name}\b", re.MULTILINE)
    inside = [
        path
        for path, text in texts.items()
        if path.startswith("bench/") and name in text and top.search(text)
    ]
    here = f"{module.replace('.', '/')}.py"
    found = here if here in inside else inside[0] if len(inside) == 1 else None
    return found and f"{found.removesuffix('.py').replace('/', '.')}:{name}"
