"""Write what the package knows without data and plug-ins: `python -m tests.verify.write_known`.

In the root of the repository. It follows from the data sets, suites and plug-ins of the package;
`test_verify_known.py` compares.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from bench import registry
from bench.contract import Learner, Method, TaskShape
from bench.contract.config import BnMode
from bench.data.base import DatasetSource
from bench.data.digests import DigestMemory
from bench.data.sets.glyphs import Glyphs
from bench.data.tasks import lists_digest
from bench.results.files import content_hash
from bench.suites.catalogue import names_of
from bench.suites.expand import defaults
from bench.suites.protocols import PROTOCOLS
from bench.suites.suite import Suite, read_suite, suite_parts
from bench.verify import known

OWN = registry.OWN
GLYPHS = "letters drawn from the font files of matplotlib"


def content() -> dict[str, Any]:
    """Return the content of the file."""
    return {"data": data(), "plug_ins": plug_ins(), "lists": {}}


def data() -> dict[str, Any]:
    """Return digests and class counts of the package's data sets, as far as they are known."""
    found = {}
    for name in registry.names("dataset", OWN):
        source: DatasetSource = registry.load("dataset", name)()
        row: dict[str, Any] = {"digests": known_digests(source)}
        if counts := class_counts(source):
            row["test_counts"] = counts
        split = known.LETTERS_DRAWN if isinstance(source, Glyphs) else source.official
        if split is not None:
            row["split"] = split
        found[name] = row
    return found


def known_digests(source: DatasetSource) -> dict[str, str]:
    """Return the digests of data that known sources are read into."""
    sources = dict(source.known_digests)
    if isinstance(source, Glyphs):
        place = source.locate(None)
        with tempfile.TemporaryDirectory() as cache:
            sources[source.source_digest(place, DigestMemory(Path(cache)))] = GLYPHS
    size, version = source.image_size, source.reader_version
    return {content_hash([source.name, size, s, version]): text for s, text in sources.items()}


def class_counts(source: DatasetSource) -> list[int]:
    """Return the images of each test class, in the order of the classes; none where not known."""
    n_classes, images = source.expected["test"]
    official = source.class_split().get("test") or {}
    counts = [official[name] or images for name in sorted(official)] or [images] * n_classes
    return [int(one) for one in counts] if all(counts) else []


def plug_ins() -> dict[str, Any]:
    """Return versions, defaults and presets of the package's plug-ins."""
    kinds: tuple[registry.Kind, ...] = ("method", "calibration", "learner", "net")
    return {
        kind: {name: described(kind, name) for name in registry.names(kind, OWN)} for kind in kinds
    }


def described(kind: registry.Kind, name: str) -> dict[str, Any]:
    """Return what is known of one plug-in."""
    found: dict[str, Any] = {"version": registry.version(kind, name)}
    plug_in = registry.load(kind, name)
    if kind in ("learner", "calibration"):
        found["transductive"] = plug_in.transductive
    if kind not in ("method", "calibration"):
        return found
    fields = plug_in.Config.model_fields.items()
    later = {n for n, f in fields if (f.json_schema_extra or {}).get("added")}
    usual = plug_in.Config.model_validate(defaults(plug_in.Config)).model_dump(mode="json")
    found |= {"defaults": usual, "added": {n: usual[n] for n in usual if n in later}}
    if kind == "method":
        learners = {n: registry.load("learner", n) for n in registry.names("learner", OWN)}
        found |= {
            "uses_pool": plug_in.uses_pool,
            "knowledge": plug_in.knowledge,
            "presets": {name: dict(values) for name, values in plug_in.presets.items()},
        }
        special = {
            preset: {
                learner: dict(plug_in.preset_values(preset, one))
                for learner, one in learners.items()
                if plug_in.preset_values(preset, one) != plug_in.presets[preset]
            }
            for preset in plug_in.presets
        }
        found["for_learners"] = {name: some for name, some in special.items() if some}
        found["bn"] = batch_norm(plug_in, learners)
    return found


def batch_norm(method: type[Method], learners: dict[str, type[Learner]]) -> dict[str, Any]:
    """Return how batch norm normalises at prediction where it is not as the protocol says."""
    usual = PROTOCOLS["cvpr23"]
    protocols = [usual.model_copy(update={"bn": bn}) for bn in get_args(BnMode)]

    def modes(learner: type[Learner], **settings: Any) -> set[BnMode]:
        config = method.Config.model_validate(defaults(method.Config) | settings)
        asked = [method.bn_of(config, learner, one) for one in protocols]
        return set() if asked == [one.bn for one in protocols] else set(asked)

    if "bn" in method.Config.model_fields:
        values = get_args(method.Config.model_fields["bn"].annotation)
        learner = learners[method.default_learner]
        return {"by_setting": {one: _only(modes(learner, bn=one)) for one in values}}
    found = {name: modes(one) for name, one in learners.items()}
    special = {name: _only(some) for name, some in found.items() if some}
    return {"by_learner": special} if special else {}


def _only(modes: set[BnMode]) -> BnMode:
    (mode,) = modes
    return mode


def lists() -> dict[str, str]:
    """Return the digest of each frozen task list of the suites, whose class counts are known."""
    found = {}
    for name in names_of("suite"):
        for part in suite_parts(read_suite(name)[0]):
            for datasets in tested(part):
                for k_shot in part.k_shot:
                    shape = TaskShape(part.n_way, k_shot, part.n_query)
                    drawn = known.drawn_lists(datasets, shape, part.n_test_tasks)
                    if drawn:
                        key = known.list_name(datasets, shape, part.n_test_tasks)
                        found[key] = lists_digest(drawn)
    return dict(sorted(found.items()))


def tested(suite: Suite) -> list[tuple[str, ...]]:
    """Return which data sets' test tasks a suite scores together."""
    single = [(name,) for name in suite.datasets]
    return [*single, tuple(suite.datasets)] if suite.scenario == "MH" else single


def text(values: dict[str, Any]) -> str:
    """Return the file's text: one data set, plug-in or list per line."""
    parts = []
    for room, rows in values.items():
        if room == "plug_ins":
            inner = ",\n".join(f'"{kind}": {{\n{_rows(some)}\n}}' for kind, some in rows.items())
        else:
            inner = _rows(rows)
        parts.append(f'"{room}": {{\n{inner}\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rows(rows: dict[str, Any]) -> str:
    return ",\n".join(
        f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in rows.items()
    )


if __name__ == "__main__":
    whole = content()
    known.FILE.write_text(text(whole), encoding="utf-8")  # the lists are drawn from the counts
    known._content.cache_clear()
    known.FILE.write_text(text({**whole, "lists": lists()}), encoding="utf-8")
