"""A data set in the Croissant format: its files with digests, its splits, the classes of each.

Source: Croissant 1.0, http://mlcommons.org/croissant/1.0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.data.base import DatasetSource, Download
from bench.data.reading.class_splits import SPLITS, read_split
from bench.errors import BenchError, unknown_name

CONFORMS = "http://mlcommons.org/croissant/1.0"
_CROISSANT = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _CROISSANT},
}
SPLIT_TYPES = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


class Origin(NamedTuple):
    """Where a data set is described, by whom it was made and in which year it was published."""

    title: str
    creators: tuple[str, ...]
    year: int
    url: str


_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CUB = "https://data.caltech.edu/records/65de6-vp158"
ORIGINS = {
    "cifar_fs": Origin(
        "CIFAR-FS: the classes of CIFAR-100 divided for few-shot learning",
        ("Alex Krizhevsky", "Luca Bertinetto"),
        2019,
        _KRIZHEVSKY,
    ),
    "mini_imagenet_subset": Origin(
        "A subset of miniImageNet: 9,040 images of its 100 classes",
        ("Oriol Vinyals", "Sachin Ravi", "Hugo Larochelle"),
        2017,
        "https://image-net.org/download",
    ),
    "cub": Origin(
        "CUB-200-2011, divided for few-shot learning",
        ("Catherine Wah", "Steve Branson", "Peter Welinder", "Pietro Perona", "Serge Belongie"),
        2011,
        _CUB,
    ),
    "cub_subset_cropped": Origin(
        "A cropped subset of CUB-200-2011: 7,456 images of 127 classes",
        ("Catherine Wah", "Steve Branson", "Peter Welinder", "Pietro Perona", "Serge Belongie"),
        2011,
        _CUB,
    ),
    "vgg_flower": Origin(
        "102 Category Flower Dataset, divided for few-shot learning",
        ("Maria-Elena Nilsback", "Andrew Zisserman"),
        2008,
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
    "omniglot": Origin(
        "Omniglot, divided for few-shot learning",
        ("Brenden M. Lake", "Ruslan Salakhutdinov", "Joshua B. Tenenbaum"),
        2015,
        "https://github.com/brendenlake/omniglot",
    ),
}
"""Data sets of which files are published, or packs are known by their digest."""


def croissant(source: DatasetSource) -> dict[str, Any]:
    """Return the description of a data set of this package, as JSON-LD.

    Raises:
        BenchError: it is none of those whose files are known.
    """
    if source.name not in ORIGINS:
        raise unknown_name("data set with known files", source.name, ORIGINS)
    origin, files = ORIGINS[source.name], _distribution(source)
    if not files:
        raise BenchError(f"no file of '{source.name}' is known by a digest; name another data set")
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": source.name,
        "description": _description(source, origin),
        "license": {"@type": "sc:CreativeWork", "name": source.licence},
        "url": origin.url,
        "creator": [{"@type": "sc:Person", "name": name} for name in origin.creators],
        "datePublished": str(origin.year),
        "version": f"1.0.{source.reader_version}",
        "isLiveDataset": False,
        "distribution": files,
        "recordSet": [_splits(), _classes(source)],
    }


def _description(source: DatasetSource, origin: Origin) -> str:
    counts = ", ".join(f"{source.expected[name][0]} {name}" for name in SPLITS)
    split = read_split(source.official)["source"] if source.official else ""
    return f"{origin.title}. {counts} classes; {source.image_size} px. Split: {split}"


def _distribution(source: DatasetSource) -> list[dict[str, Any]]:
    known = source.known_digests.items()
    packs = [
        {
            "@type": "cr:FileObject",
            "@id": f"{source.name}.zip" if number == 0 else f"{source.name}-{number}.zip",
            "name": f"{source.name}.zip",
            "description": text,
            "contentUrl": f"{source.name}.zip",
            "encodingFormat": "application/zip",
            "sha256": digest,
        }
        for number, (digest, text) in enumerate(known)
    ]
    return [*packs, *map(_download, source.downloads)]


def _download(one: Download) -> dict[str, Any]:
    algorithm, _, digest = one.digest.partition(":")
    kind = "application/zip" if one.file.endswith(".zip") else "application/x-tar"
    kind = "application/octet-stream" if one.file.endswith(".mat") else kind
    return {
        "@type": "cr:FileObject",
        "@id": one.file,
        "name": one.file,
        "contentUrl": one.url,
        "encodingFormat": kind,
        algorithm: digest,
    }


def _splits() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [_field("splits/name", "sc:Text"), _field("splits/url", "sc:URL")],
        "data": [{"splits/name": n, "splits/url": SPLIT_TYPES[n]} for n in SPLITS],
    }


def _classes(source: DatasetSource) -> dict[str, Any]:
    split = {**_field("classes/split", "sc:Text"), "references": {"@id": "splits/name"}}
    rows = []
    for name in SPLITS:
        images = source.expected[name][1]
        for one, count in (source.class_split().get(name) or {}).items():
            rows.append(
                {"classes/name": one, "classes/split": name, "classes/images": count or images}
            )
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes in the order in which test tasks number them; images: how many",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/name"},
        "field": [
            _field("classes/name", "sc:Text"),
            split,
            _field("classes/images", "sc:Integer"),
        ],
        "data": rows,
    }


def _field(name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind}
