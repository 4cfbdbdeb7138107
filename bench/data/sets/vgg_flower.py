"""VGG Flower: 102 kinds of flowers, 8,189 images, split 71/15/16.

Source: Nilsback and Zisserman, "Automated flower classification over a large number of classes",
2008; split of the paper's released code, by label number.
"""

from __future__ import annotations

import io
from pathlib import PurePosixPath

from bench.data.base import IMAGENET_MEAN, IMAGENET_STD, Download
from bench.data.reading.folders import (
    Arrangement,
    FolderSource,
    arrange_by_class,
    arrange_splits,
    holds_splits,
    is_image,
)
from bench.data.reading.tree import Tree
from bench.errors import BenchError

LABELS = "imagelabels.mat"
_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"


class VggFlower(FolderSource):
    """VGG Flower from the official files in one folder, or sorted by split or class.

    Classes are named by their label, `001` to `102`; image_00001.jpg is the first label's.
    """

    name = "vgg_flower"
    image_size = 84
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    licence = "none stated; images collected from the web for research (Nilsback, 2008)"
    how_to_get = (
        f"put 102flowers.tgz and {LABELS} from {_URL} into vgg_flower/ in the folder given with "
        "--data DIR (torchvision's flowers-102/ is accepted too)"
    )
    expected = {"train": (71, None), "val": (15, None), "test": (16, None)}
    official = "vgg_flower"
    n_images = 8_189
    split_files = (LABELS,)
    inner_archives = ("102flowers.tgz",)
    downloads = (
        Download(
            "vgg_flower/102flowers.tgz",
            f"{_URL}/102flowers.tgz",
            "md5:52808999861908f626f3c1f4e79d11fa",
        ),
        Download(
            f"vgg_flower/{LABELS}", f"{_URL}/{LABELS}", "md5:e0620be6f572b9609742df49c70aed4d"
        ),
    )

    def candidates(self) -> tuple[str, ...]:
        """Return the names looked for, torchvision's folder last."""
        return (*super().candidates(), "flowers-102")

    def arrange(self, tree: Tree) -> Arrangement:
        """Return the members of every class, by split, by folder or by the file of labels."""
        if holds_splits(tree):
            return arrange_splits(tree)
        labels = [member for member in tree.members if PurePosixPath(member).name == LABELS]
        if not labels:
            return arrange_by_class(tree, self.class_split())
        return self._arrange_by_label(tree, _read_labels(tree, labels[0]))

    def _arrange_by_label(self, tree: Tree, labels: list[int]) -> Arrangement:
        split = self.class_split()
        owner = {name: part for part, names in split.items() for name in names}
        found: dict[str, dict[str, list[str]]] = {part: {} for part in split}
        images = {PurePosixPath(m).stem: m for m in tree.members if is_image(m)}
        for number, label in enumerate(labels, 1):
            member = images.get(f"image_{number:05d}")
            if member is None:
                raise BenchError(
                    f"'{tree.path}' lacks image_{number:05d}.jpg, which {LABELS} labels {label}; "
                    "unpack 102flowers.tgz again"
                )
            name = f"{label:03d}"
            found[owner[name]].setdefault(name, []).append(member)
        return {part: dict(sorted(classes.items())) for part, classes in found.items()}


def _read_labels(tree: Tree, member: str) -> list[int]:
    """Return the label (1 to 102) of each image."""
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(tree.read(member)))  # type: ignore[arg-type]  # files are taken
        labels = content["labels"].ravel().tolist()
    except Exception as error:  # scipy raises many kinds for damaged input
        reason = " ".join(str(error).split())
        raise BenchError(
            f"'{member}' in '{tree.path}' cannot be read ({reason}); download {LABELS} again"
        ) from None
    wrong = [label for label in labels if label not in range(1, 103)]
    if wrong:
        raise BenchError(
            f"'{member}' in '{tree.path}' has label {wrong[0]}, labels are 1 to 102; download "
            f"{LABELS} again"
        )
    return [int(label) for label in labels]
