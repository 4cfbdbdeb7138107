"""CUB-200-2011: 200 bird species, split 100/50/50 by class number, and a packed, cropped subset.

Source: Wah et al., "The Caltech-UCSD Birds-200-2011 dataset", 2011; split of Chen et al., "A closer
look at few-shot classification", ICLR 2019. Whole images, resized to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from bench.data.base import IMAGENET_MEAN, IMAGENET_STD, Download
from bench.data.reading.folders import (
    Arrangement,
    FolderSource,
    arrange_by_class,
    arrange_splits,
    holds_splits,
)
from bench.data.reading.tree import Tree
from bench.errors import BenchError

OFFICIAL = "CUB_200_2011"


class Cub(FolderSource):
    """CUB from the official archive or its folder, or sorted by split or class.

    Where the archive's own `images.txt` is there, every image that it lists must be, too.
    """

    name = "cub"
    image_size = 84
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    licence = "images belong to their photographers; offered for non-commercial research"
    how_to_get = (
        f"put {OFFICIAL}.tgz from https://data.caltech.edu/records/65de6-vp158, its folder "
        f"{OFFICIAL}/, or cub.zip into the folder given with --data DIR"
    )
    expected = {"train": (100, None), "val": (50, None), "test": (50, None)}
    official = "cub"
    n_images = 11_788
    split_files: ClassVar[tuple[str, ...]] = ("images.txt",)
    downloads: ClassVar[Sequence[Download]] = (
        Download(
            f"{OFFICIAL}.tgz",
            f"https://data.caltech.edu/records/65de6-vp158/files/{OFFICIAL}.tgz",
            "md5:97eceeb196236b17998738112f37df78",
        ),
    )

    def candidates(self) -> tuple[str, ...]:
        """Return the repacked forms first, then the official ones."""
        return (*super().candidates(), OFFICIAL, f"{OFFICIAL}.tgz", f"{OFFICIAL}.zip")

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every class, by split or by the class's number."""
        if holds_splits(tree):
            return arrange_splits(tree)
        _check_complete(tree)
        return arrange_by_class(tree, self.class_split())


class CubSubsetCropped(Cub):
    """127 species with all their images, cropped to the bounding box: easier than whole images.

    A data set of its own name: its numbers never share a column with the complete set's.
    """

    name = "cub_subset_cropped"
    how_to_get = (
        "it is a pack for development: put cub_subset_cropped.zip into the folder given with "
        "--data DIR"
    )
    expected = {"train": (61, None), "val": (32, None), "test": (34, None)}
    official = "cub_subset_cropped"
    n_images = 7_456
    split_files = ()
    downloads = ()
    known_digests = {
        "9fbcdbc4565b084891b12f5a2a7998adf40b87ec2611379ec766d4678304b7e5": (
            "the pack of 7,456 cropped images (84 px JPEG)"
        )
    }

    def candidates(self) -> tuple[str, ...]:
        """Return the pack and its folder."""
        return (f"{self.name}.zip", self.name)


def _check_complete(tree: Tree) -> None:
    """Compare the images with the archive's own list, where it is there."""
    for member in tree.members:
        place = PurePosixPath(member)
        if place.name == "images.txt":
            lines = tree.read(member).decode("utf-8-sig", "replace").splitlines()
            names = [line.split(maxsplit=1)[1] for line in lines if len(line.split()) > 1]
            there = set(tree.members)
            missing = [n for n in names if (place.parent / "images" / n).as_posix() not in there]
            if missing:
                raise BenchError(
                    f"'{tree.path}' lacks {len(missing)} of the {len(names)} images that its "
                    f"images.txt lists, the first is '{missing[0]}'; unpack {OFFICIAL}.tgz again"
                )
