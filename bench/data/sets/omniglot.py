"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each.

Source: Lake et al., "Human-level concept learning through probabilistic program induction",
Science 2015. Split by alphabet: the evaluation alphabets are test; of the background alphabets the
five smallest are val and the rest train, as in Meta-Dataset (Triantafillou et al., ICLR 2020):
883/81/659 characters. No rotated copies.
"""

from __future__ import annotations

from bench.data.base import Download
from bench.data.reading.folders import Arrangement, FolderSource, arrange_by_class
from bench.data.reading.tree import Tree
from bench.data.sets import SPLITS, ClassSplit, read_split

ARCHIVES = ("images_background.zip", "images_evaluation.zip")
DRAWINGS = 20
_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"


class Omniglot(FolderSource):
    """Omniglot from a zip or folder that holds both image sets, as folders or as their zips."""

    name = "omniglot"
    image_size = 32
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    licence = "MIT"
    how_to_get = (
        "put images_background.zip and images_evaluation.zip from "
        "https://github.com/brendenlake/omniglot (folder python) into omniglot/ in the folder "
        "given with --data DIR"
    )
    expected = {"train": (883, DRAWINGS), "val": (81, DRAWINGS), "test": (659, DRAWINGS)}
    inner_archives = ARCHIVES
    downloads = (
        Download(
            "omniglot/images_background.zip",
            f"{_URL}/images_background.zip",
            "md5:68d2efa1b9178cc56df9314c21c6e718",
        ),
        Download(
            "omniglot/images_evaluation.zip",
            f"{_URL}/images_evaluation.zip",
            "md5:6b91aef0f799c5bb55b94e3f2daec811",
        ),
    )

    def candidates(self) -> tuple[str, ...]:
        """Return the names looked for, torchvision's folder last."""
        return (*super().candidates(), "omniglot-py")

    def class_split(self) -> ClassSplit:
        """Return the characters of each split, named `alphabet/character01` and so on."""
        content = read_split(self.name)
        return {
            split: {
                f"{alphabet}/character{number:02d}": DRAWINGS
                for alphabet, n in sorted(content[split].items())
                for number in range(1, n + 1)
            }
            for split in SPLITS
        }

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every character."""
        return arrange_by_class(tree, self.class_split())
