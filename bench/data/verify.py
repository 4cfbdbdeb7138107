"""Is this the data set that it says it is? Counts of classes and images, and known digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.data.base import ClassImages, DatasetSource, Listing


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: as it should be, worth knowing, or wrong."""

    level: Literal["ok", "note", "error"]
    text: str


def verify(source: DatasetSource, path: Path, cache: Path) -> list[Finding]:
    """Return what there is to say about a data set's source, without decoding its images.

    Args:
        source: the data set.
        path: the file or folder that holds it, as found by `source.find`.
        cache: the cache folder, where digests are remembered.

    Raises:
        BenchError: the source cannot be listed at all.
    """
    from bench.data.digests import DigestMemory

    with source.contents(path) as listing:
        findings = count_findings(source.expected, listing)
    digest = source.source_digest(path, DigestMemory(cache))
    return [*findings, _digest_finding(source, digest)]


def count_findings(
    expected: Mapping[str, tuple[int, int | None]], listing: Listing
) -> list[Finding]:
    """Compare each split with what it should hold; also classes that two splits share."""
    findings = [_split_finding(name, listing.get(name, []), *expected[name]) for name in expected]
    owner: dict[str, str] = {}
    for name, parts in listing.items():
        for part in parts:
            if owner.setdefault(part.name, name) != name:
                text = f"class '{part.name}' is in both {owner[part.name]} and {name}"
                findings.append(Finding("error", text))
    return findings


def _split_finding(
    name: str, parts: list[ClassImages], n_classes: int, n_images: int | None
) -> Finding:
    if len(parts) != n_classes:
        return Finding("error", f"split {name} has {len(parts)} classes, not {n_classes}")
    for part in parts:
        if n_images is not None and part.count != n_images:
            text = f"class '{part.name}' of {name} has {part.count} images, not {n_images}"
            return Finding("error", text)
    total = sum(part.count for part in parts)
    return Finding("ok", f"split {name} has {n_classes} classes and {total} images")


def _digest_finding(source: DatasetSource, digest: str) -> Finding:
    if digest in source.known_digests:
        return Finding("ok", f"digest {digest}: {source.known_digests[digest]}")
    return Finding("note", f"digest {digest}: not one that was checked before")
