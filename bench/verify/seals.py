"""Checks of files: a cell's own seal (`DONE`), and the manifests of the folders above it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

from bench.errors import BenchError
from bench.results.community import BADGES, SUBMISSION, read_badge
from bench.results.files import file_sha256
from bench.results.store import CONFIG, DONE, PREDICTIONS, RECORD, TASKS, damage
from bench.verify.findings import Checked, Finding, doubt, refused
from bench.verify.manifest import MANIFEST, is_inside, read_manifest, small_text
from bench.verify.schema import Submission

Files = dict[str, str]
SEALED = {RECORD, TASKS, PREDICTIONS, CONFIG}
"""Files of which a finished cell's seal must hold the digest."""
BESIDE = {SUBMISSION, MANIFEST, "README.md"}
"""Files of a submission that its manifest does not name."""


class Manifests:
    """The manifests of a folder and the folders below it, each read once.

    Args:
        root: nothing above it is read.
        listed: whether there are any; False leaves them unread.
    """

    def __init__(self, root: Path, listed: bool = True) -> None:
        self._root, self._listed = root, listed
        self._read: dict[Path, Files | None] = {}
        self.damaged: list[Finding] = []

    def nearest(self, folder: Path) -> tuple[Path, Files] | None:
        """Return the folder and the content of the manifest that a cell belongs to, or None."""
        for place in (folder, *folder.parents):
            if (files := self._of(place)) is not None:
                return place, files
            if place == self._root:
                break
        return None

    def _of(self, place: Path) -> Files | None:
        if place not in self._read:
            self._read[place] = None
            try:
                self._read[place] = read_manifest(place) if self._listed else None
            except BenchError as error:
                self.damaged.append(refused("manifest", str(error)))
        return self._read[place]

    def findings(self, submission: bool) -> Iterator[Finding]:
        """Yield what is wrong with the folders that have a manifest.

        Args:
            submission: whether each must be a submission.
        """
        yield from self.damaged
        for place, files in sorted(self._read.items()):
            if files is None:
                continue
            lost = sorted(name for name in files if not (place / name).is_file())
            if lost:
                more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
                yield refused("manifest", f"{lost[0]}{more} of {MANIFEST} is missing")
            if submission or (place / SUBMISSION).exists():
                yield from _submission(place, files)
            yield from _badges(place, files)


def _submission(place: Path, files: Files) -> Iterator[Finding]:
    try:
        found = Submission.model_validate_json(small_text(place / SUBMISSION))
    except FileNotFoundError:
        yield refused("submission", f"{place / SUBMISSION} is missing; bench submit writes it")
        return
    except (OSError, ValueError) as error:
        first = " ".join(str(error).split())[:120]
        yield refused("submission", f"{place / SUBMISSION} is not as its schema says: {first}")
        return
    yield from _strange(place, files)
    cells = {name.split("/")[-2] for name in files if name.endswith(f"/{RECORD}")}
    if cells != set(found.cells):
        yield refused("submission", f"{SUBMISSION} and {MANIFEST} name different cells")


def _strange(place: Path, files: Files) -> Iterator[Finding]:
    """Yield what a submission holds beside its cells and badges, hidden files included."""
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield refused("submission", f"{name} is a link, or no file")
        elif path.is_file() and name not in {*files, *BESIDE} and path.parent.name != BADGES:
            yield refused("submission", f"{name} is neither of a cell nor in {MANIFEST}")


def _badges(place: Path, files: Files) -> Iterator[Finding]:
    records = {name.split("/")[-2]: d for name, d in files.items() if name.endswith(f"/{RECORD}")}
    for path in sorted((place / BADGES).glob("*")):
        badge = read_badge(path)
        if badge is None or path.name != f"{badge.cell_hash}.json":
            yield refused("badge", f"{path} is no badge of a cell of its name")
        elif records.get(badge.cell_hash) != badge.record_sha256:
            yield refused("badge", f"{path} is of another record than the one that is here")


def seals(
    folder: Path, manifests: Manifests, submission: bool, checked: Checked
) -> Iterator[Finding]:
    """Compare a cell's files with `DONE`, and with the manifest that names them.

    Args:
        folder: of the cell.
        manifests: of the folders above.
        submission: whether one of the two must be there.
        checked: takes note that digests were compared.
    """
    files = {p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}
    listed = manifests.nearest(folder)
    if (folder / DONE).exists():
        checked.counted.add("digests")
        yield from _sealed(folder, files)
    elif listed is None:
        say = refused if submission or (folder / CONFIG).exists() else doubt
        text = f"{DONE} is missing: the cell is not finished, or its files are not sealed"
        yield say("files", text)
    if listed is not None:
        checked.counted.add("digests")
        yield from _listed(files, *listed)


def irregular(folder: Path) -> str | None:
    """Say which entry of a cell's folder is neither a file nor a folder: a link, a pipe."""
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return f"{path.relative_to(folder)} is a link"
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return f"{path.relative_to(folder)} is no file"
    return None


def _sealed(folder: Path, files: set[Path]) -> Iterator[Finding]:
    try:
        names = [*json.loads(small_text(folder / DONE))]
    except (OSError, ValueError, TypeError, RecursionError):
        yield refused("files", f"{DONE} is damaged")
        return
    if strange := [name for name in names if not is_inside(name)]:
        yield refused("files", f"{DONE} names '{strange[0]}', which is outside its folder")
    elif problem := damage(folder):
        yield refused("files", problem)
    rest = {p.relative_to(folder).as_posix() for p in files} - {*names, DONE}
    if open_parts := sorted(rest & SEALED):
        yield refused("files", f"{open_parts[0]} is not among the files of {DONE}")
    elif rest:
        yield doubt("files", f"{min(rest)} is not among the files of {DONE}")


def _listed(files: set[Path], root: Path, manifest: Files) -> Iterator[Finding]:
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        if name not in manifest:
            yield refused("manifest", f"{path.name} is not in {MANIFEST}")
        elif file_sha256(path) != manifest[name]:
            yield refused("manifest", f"{path.name} has changed since {MANIFEST} was written")
