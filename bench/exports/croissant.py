"""A data set in the Croissant format: its files with digests, its splits, the classes of each.

Of a set that is drawn by code, the files are the fonts that it is drawn from; of one whose images
nobody may hand on, the file of its class split.

Source: Croissant 1.0, http://mlcommons.org/croissant/1.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bench.data.base import DatasetSource, Download
from bench.data.sets import SPLITS, ClassSplit, read_split
from bench.data.sets.glyphs import FACES, IMAGES_A_CLASS, LETTERS, Glyphs, class_name
from bench.errors import BenchError
from bench.results.files import file_sha256

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


SPLIT_FILES = Path(__file__).resolve().parents[1] / "data" / "sets" / "splits"
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CUB = "https://data.caltech.edu/records/65de6-vp158"
ORIGINS = {
    "cifar_fs": Origin(
        "CIFAR-FS: the classes of CIFAR-100 divided for few-shot learning",
        ("Alex Krizhevsky", "Luca Bertinetto"),
        2019,
        _KRIZHEVSKY,
    ),
    "glyphs": Origin(
        "Glyphs: letters of five scripts, drawn by code from the DejaVu fonts in matplotlib",
        ("The purer-bench authors",),
        2026,
        "https://dejavu-fonts.github.io",
    ),
    "mini_imagenet": Origin(
        "miniImageNet: 100 classes of ImageNet, from which its images are to be made; no "
        "archive of them has a published digest",
        ("Oriol Vinyals", "Sachin Ravi", "Hugo Larochelle"),
        2017,
        "https://image-net.org/download",
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
"""The data sets of this package."""


def croissant(source: DatasetSource) -> dict[str, Any]:
    """Return the description of a data set of this package, as JSON-LD.

    Raises:
        BenchError: it is of another package, or a folder of images.
    """
    if source.name not in ORIGINS:
        raise BenchError(
            f"'{source.name}' is not of this package, which does not know its makers, licence and "
            f"files; name {', '.join(sorted(ORIGINS))}"
        )
    origin, files = ORIGINS[source.name], _distribution(source)
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
    text = f"{origin.title}. {counts} classes; {source.image_size} px."
    return f"{text} Split: {read_split(source.official)['source']}" if source.official else text


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
    files = [*packs, *map(_download, source.downloads)]
    if isinstance(source, Glyphs):
        folder = source.locate(None)
        files = [_file(folder / face, f"fonts/ttf/{face}", "font/ttf") for face in FACES]
    if not files and source.official:
        path = SPLIT_FILES / f"{source.official}.json"
        files = [_file(path, f"splits/{path.name}", "application/json")]
    return files


def _file(path: Path, address: str, kind: str) -> dict[str, Any]:
    """Describe a file of an installed package, by its address within that."""
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": address,
        "encodingFormat": kind,
        "sha256": file_sha256(path),
    }


def _split(source: DatasetSource) -> ClassSplit:
    if not isinstance(source, Glyphs):
        return source.class_split()
    names = {split: sorted(map(class_name, letters)) for split, letters in LETTERS.items()}
    return {split: dict.fromkeys(some, IMAGES_A_CLASS) for split, some in names.items()}


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
        for one, count in (_split(source).get(name) or {}).items():
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
