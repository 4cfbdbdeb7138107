"""Checks of a data set's source: classes, counts of images, and known digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.data.base import ClassImages, DatasetSource, Listing
from bench.data.sets import ClassSplit

SHOWN = 3
"""How many names a finding spells out."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: ok, note or error."""

    level: Literal["ok", "note", "error"]
    text: str


def verify(source: DatasetSource, path: Path, cache: Path) -> list[Finding]:
    """Return the findings about a data set's source.

    Its images are read and compared over splits, except those that are drawn by code.

    Args:
        source: the data set.
        path: the file or folder that holds it, as found by `source.find`.
        cache: the cache folder, where digests are remembered.

    Raises:
        BenchError: the source cannot be listed at all.
    """
    from bench.data.digests import DigestMemory

    with source.contents(path) as listing:
        findings = source_findings(source, listing)
        if not source.sample_digest(path):
            findings += _shared_images(listing)
    digest = source.source_digest(path, DigestMemory(cache))
    return [*findings, *_published(source, path), _digest_finding(source, digest)]


def source_findings(source: DatasetSource, listing: Listing) -> list[Finding]:
    """Compare a listing with all that is known of the data set: classes, counts, the total."""
    findings = count_findings(source.expected, listing, source.class_split())
    total = sum(part.count for parts in listing.values() for part in parts)
    if source.n_images is not None and total != source.n_images:
        findings.append(Finding("error", f"{total} images in all, not {source.n_images}"))
    return findings


def count_findings(
    expected: Mapping[str, tuple[int, int | None]],
    listing: Listing,
    classes: ClassSplit | None = None,
) -> list[Finding]:
    """Compare each split with what it should hold; also classes that two splits share.

    Args:
        expected: (classes, images a class or None) of the splits that have fixed numbers.
        listing: what is there.
        classes: the official classes of each split, or None.
    """
    findings = []
    for name in {**expected, **listing}:
        parts, official = listing.get(name, []), (classes or {}).get(name)
        findings.append(_split_finding(name, parts, expected.get(name), official))
    owner: dict[str, str] = {}
    for name, parts in listing.items():
        for part in parts:
            if owner.setdefault(part.name, name) != name:
                text = f"class '{part.name}' is in both {owner[part.name]} and {name}"
                findings.append(Finding("error", text))
    return findings


def _split_finding(
    name: str,
    parts: list[ClassImages],
    expected: tuple[int, int | None] | None,
    official: Mapping[str, int | None] | None,
) -> Finding:
    n_classes, n_images = expected or (len(parts), None)
    names = [part.name for part in parts]
    missing = [one for one in official or () if one not in names]
    foreign = [one for one in names if official is not None and one not in official]
    if len(parts) != n_classes:
        lacks = f"; missing: {listed(missing)}" if missing else ""
        return Finding("error", f"split {name} has {len(parts)} classes, not {n_classes}{lacks}")
    if missing or foreign:
        text = f"split {name} holds {listed(foreign)} instead of {listed(missing)}"
        return Finding("error", text)
    for part in parts:
        wanted = n_images if official is None else official[part.name] or n_images
        if wanted is not None and part.count != wanted:
            text = f"class '{part.name}' of {name} has {part.count} images, not {wanted}"
            return Finding("error", text)
    counts = [part.count for part in parts]
    spread = "" if len(set(counts)) < 2 else f" ({min(counts)} to {max(counts)} a class)"
    return Finding("ok", f"split {name} has {n_classes} classes and {sum(counts)} images{spread}")


def _shared_images(listing: Listing) -> list[Finding]:
    """Count the images of each split that are in an earlier one, too, pixel for pixel."""
    owner: dict[bytes, tuple[str, str]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for split, parts in listing.items():
        for part in parts:
            for number, image in enumerate(part.read(), 1):
                name = f"image {number} of class '{part.name}'"
                first = owner.setdefault(hashlib.sha256(image.tobytes()).digest(), (split, name))
                if first[0] != split:
                    found.setdefault((split, first[0]), []).append(f"{name} is {first[1]}")
    return [
        Finding("note", f"{len(pairs)} images of {split} are in {other}, too: {pairs[0]}")
        for (split, other), pairs in found.items()
    ]


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _published(source: DatasetSource, path: Path) -> list[Finding]:
    """Compare the files with the digests that their authors publish, where the names are theirs."""
    findings = []
    for download in source.downloads:
        name = PurePosixPath(download.file).name
        for file in sorted(path.rglob(name)) if path.is_dir() else [path]:
            if file.name == name and file.is_file():
                findings.append(_published_finding(file, download.digest))
    return findings


def _published_finding(file: Path, published: str) -> Finding:
    found = digest_of(file, published)
    if found == published:
        return Finding("ok", f"{file.name} is the published file ({found})")
    return Finding("error", f"{file.name} has {found}, published is {published}; download it again")


def digest_of(path: Path, like: str) -> str:
    """Return a file's digest, `algorithm:hex`, by the algorithm of another one."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _digest_finding(source: DatasetSource, digest: str) -> Finding:
    if digest in source.known_digests:
        return Finding("ok", f"digest {digest}: {source.known_digests[digest]}")
    return Finding("note", f"digest {digest} is unknown: not one that was checked before")
