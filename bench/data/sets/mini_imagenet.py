"""miniImageNet: 100 classes of ImageNet, 600 images each, split 64/16/20, and a packed subset.

Source: Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016; split of Ravi and
Larochelle, "Optimization as a model for few-shot learning", ICLR 2017.
"""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

from bench.data.base import IMAGENET_MEAN, IMAGENET_STD
from bench.data.reading.folders import (
    Arrangement,
    FolderSource,
    arrange_by_class,
    arrange_splits,
    holds_splits,
    is_image,
)
from bench.data.reading.tree import Tree
from bench.data.sets import SPLITS
from bench.errors import BenchError


class MiniImagenet(FolderSource):
    """miniImageNet from a folder or zip: sorted by split, by class, or by the split's csv files.

    The csv form is that of Ravi and Larochelle: `train.csv`, `val.csv` and `test.csv` with the
    columns `filename` and `label`, beside the images in any folder.
    """

    name = "mini_imagenet"
    image_size = 84
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    licence = "ImageNet's terms of access: non-commercial research and education"
    how_to_get = (
        "make it from ImageNet (https://image-net.org/download): put mini_imagenet.zip or "
        "mini_imagenet/, laid out <split>/<class>/<image>, <class>/<image>, or images beside "
        "train.csv, val.csv and test.csv, into the folder given with --data DIR"
    )
    expected = {"train": (64, 600), "val": (16, 600), "test": (20, 600)}
    official = "mini_imagenet"
    split_files = tuple(f"{split}.csv" for split in SPLITS)

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every class, whichever of the three forms the source has."""
        if any(PurePosixPath(member).name in self.split_files for member in tree.members):
            return arrange_by_csv(tree)
        if holds_splits(tree):
            return arrange_splits(tree)
        return arrange_by_class(tree, self.class_split())


class MiniImagenetSubset(MiniImagenet):
    """All 100 classes of miniImageNet with 100 (train), 40 (val) and 100 (test) images each.

    A data set of its own name: its numbers never share a column with the complete set's.
    """

    name = "mini_imagenet_subset"
    how_to_get = (
        "it is a pack for development: put mini_imagenet_subset.zip into the folder given with "
        "--data DIR"
    )
    expected = {"train": (64, 100), "val": (16, 40), "test": (20, 100)}
    known_digests = {
        "24a45558c496b5cefcbbfc9068af726b56e131e7b2f12ef4ed87eb2453bcda2b": (
            "the pack of 9,040 images (84 px JPEG)"
        )
    }


def arrange_by_csv(tree: Tree) -> Arrangement:
    """Return the images that the three csv files name, by their label; sorted.

    Raises:
        BenchError: a csv file is missing, there twice or without its columns, or an image that
            it names is not there.
    """
    images: dict[str, list[str]] = {}
    for member in filter(is_image, tree.members):
        images.setdefault(PurePosixPath(member).name, []).append(member)
    found: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        classes: dict[str, list[str]] = {}
        for name, label in _rows(tree, f"{split}.csv"):
            places = images.get(name, [])
            if len(places) > 1:
                places = [place for place in places if PurePosixPath(place).parent.name == label]
            if len(places) != 1:
                raise BenchError(
                    f"image '{name}' of {split}.csv is {'not' if not places else 'twice'} in "
                    f"'{tree.path}'; the csv files name images below their own folder"
                )
            classes.setdefault(label, []).append(places[0])
        found[split] = {label: sorted(files) for label, files in sorted(classes.items())}
    return found


def _rows(tree: Tree, file: str) -> list[tuple[str, str]]:
    places = [member for member in tree.members if PurePosixPath(member).name == file]
    if len(places) != 1:
        raise BenchError(
            f"'{tree.path}' holds {len(places)} files {file}, not one; put train.csv, val.csv and "
            "test.csv beside the images"
        )
    try:
        rows = csv.DictReader(io.StringIO(tree.read(places[0]).decode("utf-8-sig")))
        return [(PurePosixPath(row["filename"]).name, row["label"]) for row in rows]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(
            f"'{places[0]}' in '{tree.path}' is not a split ({error!r}); it needs the columns "
            "filename and label"
        ) from None
