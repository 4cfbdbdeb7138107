"""Checks of data sets, on the images that are found."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench import registry
from bench.data.base import ClassImages, DatasetSource
from bench.data.digests import DigestMemory
from bench.data.verify import source_findings
from bench.errors import Skip
from bench.testing.checks import Check, require
from bench.testing.rules import require_docstring, require_public_imports, untouched_global_state

SPLITS = ("train", "val", "test")


class DatasetSubject:
    """A data set, and the classes that its source lists.

    Args:
        name: the registered name.
        data_dir: the folder of all data sets, or None.
        dataset_dirs: where single ones are.
    """

    def __init__(
        self, name: str, data_dir: Path | None = None, dataset_dirs: Mapping[str, Path] = {}
    ) -> None:
        self.name = name
        self.kind: type[DatasetSource] = registry.load("dataset", name)
        self.source = self.kind()
        self._places = data_dir, dataset_dirs.get(name)

    @functools.cached_property
    def found(self) -> Path | None:
        """Where the data set is; None where it is not found."""
        return self.source.find(*self._places)

    @property
    def path(self) -> Path:
        """Where the data set is.

        Raises:
            Skip: it is not found.
        """
        if (path := self.found) is None:
            raise Skip("its images are not found")
        return path

    @functools.cached_property
    def first_images(self) -> dict[str, tuple[ClassImages, np.ndarray, np.ndarray]]:
        """The first class of each split, and its images, read twice."""
        with self.source.contents(self.path) as listing, untouched_global_state():
            found = {name: listing[name][0] for name in SPLITS if listing[name]}
            return {name: (one, one.read(), one.read()) for name, one in found.items()}


def declares_what_the_contract_asks(subject: DatasetSubject) -> str:
    """Declares name, size, mean, deviation, licence, how to get it, and three splits."""
    source = subject.source
    require(isinstance(source, DatasetSource), f"{subject.kind} is no subclass of DatasetSource")
    require(source.name == subject.name, f"name is '{source.name}', registered '{subject.name}'")
    require(source.image_size >= 8, f"image_size is {source.image_size}")
    require(len(source.mean) == len(source.std) == 3, "mean and std must have 3 numbers each")
    require(all(0 <= m <= 1 for m in source.mean), f"mean {source.mean} is not for pixels in 0…1")
    require(all(0 < s <= 1 for s in source.std), f"std {source.std} is not for pixels in 0…1")
    require(source.licence.strip(), "licence is empty")
    require(source.how_to_get.strip(), "how_to_get is empty")
    require(set(source.expected) == set(SPLITS), f"expected has {sorted(source.expected)}")
    return ", ".join(f"{name} {source.expected[name][0]} classes" for name in SPLITS)


def describes_itself(subject: DatasetSubject) -> str:
    """Has a docstring."""
    return require_docstring(subject.kind)


def imports_only_what_plug_ins_may(subject: DatasetSubject) -> None:
    """Imports no part of the harness that is not meant for data sets."""
    require_public_imports(subject.kind, ("data", "seeds", "results.files"))


def is_found(subject: DatasetSubject) -> str:
    """Is found, and has the same digest when asked again."""
    if subject.found is None:
        raise Skip(f"it was not found; {subject.source.how_to_get}")
    with tempfile.TemporaryDirectory() as cache:
        memory = DigestMemory(Path(cache))
        first, again = (subject.source.source_digest(subject.path, memory) for _ in range(2))
    require(first == again, f"the digest changes from {first[:8]} to {again[:8]}")
    require(len(first) == 64 and int(first, 16) >= 0, f"'{first}' is no SHA-256 in hex")
    return str(subject.path)


def lists_its_classes(subject: DatasetSubject) -> str:
    """Lists sorted classes of three splits that share none, as many as declared."""
    with subject.source.contents(subject.path) as listing:
        findings = source_findings(subject.source, listing)
        names = {split: [one.name for one in parts] for split, parts in listing.items()}
    wrong = [finding.text for finding in findings if finding.level == "error"]
    require(not wrong, "; ".join(wrong))
    for split, found in names.items():
        require(found == sorted(set(found)), f"classes of split {split} are not sorted")
    total = sum(map(len, names.values()))
    require(len(set().union(*names.values())) == total, "two splits share a class")
    return f"{total} classes"


def reads_images(subject: DatasetSubject) -> str:
    """Reads square colour images of its size as uint8, equal when read again."""
    size = subject.source.image_size
    for split, (one, images, again) in subject.first_images.items():
        wanted = (one.count, size, size, 3)
        require(images.shape == wanted, f"images of {split} are {images.shape}, not {wanted}")
        require(images.dtype == np.uint8, f"images of {split} are {images.dtype}, not uint8")
        require(
            np.array_equal(images, again), f"'{one.name}' has other pixels when it is read again"
        )
        require(images.min() < images.max(), f"all pixels of '{one.name}' are {images.min()}")
    return f"{sum(len(images) for _, images, _ in subject.first_images.values())} images read"


SUBJECTS = {"dataset": DatasetSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "dataset": (
        declares_what_the_contract_asks,
        describes_itself,
        imports_only_what_plug_ins_may,
        is_found,
        lists_its_classes,
        reads_images,
    )
}
