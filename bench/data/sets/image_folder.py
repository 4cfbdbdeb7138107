"""A user's own images: any folder, zip or tar of classes, named by `--dataset-dir NAME=PATH`."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, ValidationError

from bench.contract import Config
from bench.data.base import IMAGENET_MEAN, IMAGENET_STD, find_one_of
from bench.data.images import Mean, Std
from bench.data.reading.decoding import ENDINGS, UNREAD
from bench.data.reading.folders import (
    Arrangement,
    FolderSource,
    arrange_splits,
    holds_splits,
    is_image,
    one_spelling,
)
from bench.data.reading.tree import Tree, is_visible, open_tree
from bench.data.sets import SPLITS
from bench.errors import BenchError
from bench.seeds import numpy_generator

SETTINGS = "dataset.json"
SMALL = 48
"""Images whose shorter side is at most this many pixels are kept at 32 px, others at 84 px."""
SHARES = {"val": 0.16, "test": 0.20}
READER_VERSION = 2
"""Counts the changes to which of the images are taken, and to their pixels."""
LEAST_CLASSES = 5
"""Fewest classes of val and test where there are enough: five-way tasks need five."""


class FolderSettings(Config):
    """What `dataset.json`, beside the class folders, may say; everything may be left out."""

    image_size: int | None = Field(default=None, ge=16, le=512)
    """side of the square that images are resized to, pixels; by the images' own size if absent"""
    mean: Mean = IMAGENET_MEAN
    """of the channels, for pixels in [0, 1]"""
    std: Std = IMAGENET_STD
    """likewise"""
    licence: str = "the owner's"
    """a note for records"""
    splits: dict[str, list[str]] | None = None
    """the classes of train, val and test; drawn by the seed if absent"""
    seed: int = 0
    """of the draw of the splits"""


class ImageFolder(FolderSource):
    """A data set of the user's: `<split>/<class>/<image>`, or one level of classes.

    One level of classes is divided 64/16/20 at random by the seed, with at least five classes in
    val and test; the draw depends on the class names and the seed alone. No image is left out
    silently: one that lies elsewhere or is not read is refused, and so is a class without images.

    Args:
        name: the data set's name, as in `--dataset-dir NAME=PATH`.
        path: the folder, zip or tar.

    Raises:
        BenchError: the path is not there, holds no images, or `dataset.json` is wrong.
    """

    how_to_get = "name its folder or archive with --dataset-dir NAME=PATH"
    expected = {}
    split_files = (SETTINGS,)
    reader_version = READER_VERSION

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        find_one_of(name, (), None, path)
        with open_tree(path, _Glance()) as tree:
            self.settings = _read_settings(tree)
            self.image_size = self.settings.image_size or _natural_size(tree)
        self.mean, self.std = self.settings.mean, self.settings.std
        self.licence = self.settings.licence

    def is_part(self, member: str) -> bool:
        """Tell that a file counts: all do, since what is not read may have to be refused."""
        return True

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every class, in the splits given or drawn."""
        _check_endings(tree)
        _check_hidden(tree)
        if self.settings.splits is None and holds_splits(tree):
            arrangement = arrange_splits(tree)
            _check_taken(tree, arrangement)
            return arrangement
        classes = _classes(tree)
        if self.settings.splits is None:
            _check_folders(tree, classes)
        splits = self._given_splits() or draw_splits(list(classes), self.settings.seed)
        missing = [name for part in splits.values() for name in part if name not in classes]
        if missing or set(splits) != set(SPLITS):
            what = f"class '{missing[0]}'" if missing else f"the splits {', '.join(splits)}"
            raise BenchError(
                f"{SETTINGS} of data set '{self.name}' names {what}; it names classes that are "
                "there, under train, val and test"
            )
        return {split: {name: classes[name] for name in sorted(splits[split])} for split in SPLITS}

    def _given_splits(self) -> dict[str, list[str]]:
        given = self.settings.splits or {}
        return {split: [one_spelling(name) for name in names] for split, names in given.items()}


class _Glance:
    """Wants of a tar only what tells its settings and the size of its images: one image."""

    def __init__(self) -> None:
        self.image: str | None = None

    def __call__(self, member: str) -> bool:
        if self.image is None and is_image(member) and is_visible(member):
            self.image = member
        return member == self.image or PurePosixPath(member).name == SETTINGS


def draw_splits(classes: list[str], seed: int = 0) -> dict[str, list[str]]:
    """Divide classes 64/16/20 at random, at least five each in val and test where there are 15.

    Args:
        classes: names; their order does not matter.
        seed: another seed gives another draw.

    Raises:
        BenchError: fewer than six classes cannot be divided.
    """
    if len(classes) < 6:
        raise BenchError(
            f"{len(classes)} classes cannot be divided into train, val and test; give at least 6, "
            "or sort them into folders train/, val/ and test/"
        )
    ordered = sorted(classes)
    numpy_generator("class split", seed).shuffle(ordered)
    least = min(LEAST_CLASSES, len(ordered) // 3)
    n_val, n_test = (max(least, round(share * len(ordered))) for share in SHARES.values())
    val, test, train = (
        ordered[:n_val],
        ordered[n_val : n_val + n_test],
        ordered[n_val + n_test :],
    )
    return {"train": sorted(train), "val": sorted(val), "test": sorted(test)}


def _classes(tree: Tree) -> dict[str, list[str]]:
    """Return the images of every class folder: those at one depth, 1 or 2 below the root."""
    places = [PurePosixPath(member).parts for member in filter(is_image, tree.members)]
    depths = Counter(len(parts) for parts in places)
    enclosing = {parts[0] for parts in places}
    if depths.keys() != {2} and not (depths.keys() == {3} and len(enclosing) == 1):
        rare = min(depths, key=depths.__getitem__, default=0)
        odd = next(("/".join(parts) for parts in places if len(parts) == rare), "")
        raise BenchError(
            f"'{tree.path}' is not laid out <class>/<image> or <split>/<class>/<image>: images lie "
            f"{' and '.join(str(d - 1) for d in sorted(depths)) or 'no'} folders deep, such as "
            f"'{odd}'; sort each class's images into a folder of its own, and take out what is not "
            "yours"
        )
    found: dict[str, list[str]] = {}
    for parts in places:
        found.setdefault(one_spelling(parts[-2]), []).append("/".join(parts))
    return {name: sorted(files) for name, files in sorted(found.items())}


def _check_endings(tree: Tree) -> None:
    """Refuse what may be an image and is not read."""
    for member in tree.members:
        if member.lower().endswith(UNREAD):
            raise BenchError(
                f"'{member}' in '{tree.path}' is not read: images are {', '.join(ENDINGS)}; "
                "convert it or take it out"
            )


def _check_hidden(tree: Tree) -> None:
    """Refuse images that are hidden by a name that begins with a dot, such as a class `.net`."""
    for member in filter(is_image, tree.hidden):
        raise BenchError(
            f"image '{member}' in '{tree.path}' is not read, as a name that begins with a dot is "
            "hidden; rename it or take it out"
        )


def _check_taken(tree: Tree, arrangement: Arrangement) -> None:
    """Refuse images that lie in no class of a split."""
    taken = {
        file for classes in arrangement.values() for files in classes.values() for file in files
    }
    for member in filter(is_image, tree.members):
        if member not in taken:
            raise BenchError(
                f"image '{member}' in '{tree.path}' is not laid out <split>/<class>/<image>; move "
                "it into its class's folder or take it out"
            )


def _check_folders(tree: Tree, classes: Mapping[str, list[str]]) -> None:
    """Refuse folders beside those of the classes that hold no images."""
    beside = PurePosixPath(next(iter(classes.values()))[0]).parent.parent
    for member in tree.members:
        place = PurePosixPath(member)
        folders = [place, *place.parents] if member.endswith("/") else place.parents
        for folder in folders:
            is_class = one_spelling(folder.name) in classes
            if folder.name and folder.parent == beside and not is_class:
                raise BenchError(
                    f"class '{folder.name}' in '{tree.path}' has no images "
                    f"({', '.join(ENDINGS)}); add them or remove the folder"
                )


def _read_settings(tree: Tree) -> FolderSettings:
    places = [m for m in tree.members if PurePosixPath(m).name == SETTINGS and m.count("/") < 2]
    if not places:
        return FolderSettings()
    try:
        values: Any = json.loads(tree.read(places[0]).decode("utf-8-sig"))
        return FolderSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BenchError(
            f"{SETTINGS} in '{tree.path}': {key}: {first['msg'].lower()}; known keys: "
            f"{', '.join(FolderSettings.model_fields)}"
        ) from None
    except ValueError as error:
        raise BenchError(f"{SETTINGS} in '{tree.path}' is not JSON ({error}); repair it") from None


def _natural_size(tree: Tree) -> int:
    """Return 32 or 84, by the first image's own size."""
    from PIL import Image

    first = next(filter(is_image, tree.members), None)
    if first is None:
        raise BenchError(
            f"'{tree.path}' holds no images; name the folder or archive that has the class folders"
        )
    try:
        with Image.open(io.BytesIO(tree.read(first))) as image:
            return 32 if min(image.size) <= SMALL else 84
    except Exception as error:  # Pillow raises a dozen kinds for damaged input
        reason = " ".join(str(error).split())
        raise BenchError(
            f"image '{first}' in '{tree.path}' cannot be read ({reason}); replace it"
        ) from None
