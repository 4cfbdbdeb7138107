"""A pool on disk: one folder per teacher (weights, card), and `pool.json` with the digests.

```
<pool>/pool.json             format, name, and for each teacher its folder and two digests
<pool>/00/teacher.json       the card: network, classes, normalisation, accuracy
<pool>/00/net.safetensors    the weights
```

This is what `bench teachers export` writes and `import` reads, and how imported pools are kept in
`<cache>/pools/<name>/`. Reading cards needs no torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from bench.contract import NetSpec
from bench.contract.config import Config, ConfigT
from bench.data.images import Mean, Std
from bench.errors import BenchError, unknown_name
from bench.results.files import content_hash, file_sha256, read_checked

POOL, CARD, WEIGHTS = "pool.json", "teacher.json", "net.safetensors"
FORMAT = 1
TRAINED = frozenset(("plan", "sha256", "class_names", "mean", "std", "accuracy"))
"""What the card of a teacher that was trained here says at least."""


class TeacherCard(Config):
    """All facts about a teacher except its weights."""

    dataset: str
    """the data set it was trained on, by the name used here, or one of the user's"""
    architecture: str
    """a registered network, `torchvision:NAME` or `timm:NAME`"""
    n_outputs: int = Field(ge=2)
    """outputs of the head; those beyond the class names are unused"""
    image_size: int = Field(ge=8)
    """side of the images it takes, pixels"""
    class_names: tuple[str, ...] = Field(min_length=2)
    """in the order of the head's outputs"""
    mean: Mean
    """of the channels of its images, for pixels in [0, 1]"""
    std: Std
    """likewise"""
    accuracy: float = Field(ge=0, le=1)
    """held-out accuracy, a fraction, as whoever trained it measured it"""
    source: str
    """where it comes from: the pool's recipe, or the imported file and its digest"""

    @property
    def spec(self) -> NetSpec:
        """The network to build."""
        return NetSpec(self.architecture, self.n_outputs, self.image_size)

    @model_validator(mode="after")
    def _names(self) -> TeacherCard:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("a class name is there twice")
        if len(self.class_names) > self.n_outputs:
            raise ValueError(
                f"{len(self.class_names)} class names for {self.n_outputs} outputs of the head"
            )
        return self


def trained_card(folder: Path) -> dict[str, Any]:
    """Return the card of a teacher that was trained here, from its folder in the cache.

    Raises:
        OSError: it is missing or cannot be read.
        BenchError: it is damaged.
    """
    card = read_checked(folder / CARD, unsigned=True)
    if lacking := sorted(TRAINED - card.keys()):
        raise BenchError(f"{folder / CARD} is damaged: it lacks {', '.join(lacking)}")
    return card


class StoredTeacher(Config):
    """The folder of a pool's teacher, and the digests of its two files."""

    folder: str
    card_sha256: str
    weights_sha256: str


class PoolIndex(Config):
    """The content of `pool.json`."""

    format: int = FORMAT
    name: str
    teachers: tuple[StoredTeacher, ...] = Field(min_length=1)

    @property
    def sha256(self) -> str:
        """The digest of the pool: of every card and all weights, in order; not of its name."""
        return content_hash([[t.card_sha256, t.weights_sha256] for t in self.teachers])

    @field_validator("teachers")
    @classmethod
    def _plain_folders(cls, value: tuple[StoredTeacher, ...]) -> tuple[StoredTeacher, ...]:
        for teacher in value:
            if not re.fullmatch(r"[0-9]{2,4}", teacher.folder):
                raise ValueError(f"teacher folder '{teacher.folder}' is not a number")
        return value


def pools_folder(cache: Path) -> Path:
    """Return the folder of the imported pools."""
    return cache / "pools"


def pool_names(cache: Path) -> list[str]:
    """Return the names of the imported pools, sorted."""
    return sorted(path.parent.name for path in pools_folder(cache).glob(f"*/{POOL}"))


def pool_folder(cache: Path, name: str) -> Path:
    """Return the folder of an imported pool.

    Raises:
        BenchError: there is no pool of that name.
    """
    if name not in pool_names(cache):
        raise BenchError(
            f"{unknown_name('pool', name, pool_names(cache))}; import one with "
            "bench teachers import"
        )
    return pools_folder(cache) / name


def pool_cards(cache: Path, name: str) -> list[TeacherCard]:
    """Return the cards of an imported pool after comparing their digests."""
    folder = pool_folder(cache, name)
    return [read_card(folder, stored) for stored in cached_index(cache, name).teachers]


def cached_index(cache: Path, name: str) -> PoolIndex:
    """Read the `pool.json` of an imported pool.

    Raises:
        BenchError: there is no such pool, or the file is damaged.
    """
    path = pool_folder(cache, name) / POOL
    index = read_index(path.parent)
    if index.name != name:
        raise BenchError(
            f"'{path}' is damaged: it names pool '{index.name}'; delete its folder and import the "
            "pool again"
        )
    return index


def check_pool_name(name: str) -> None:
    """Raise an error for a name that a pool cannot have.

    Raises:
        BenchError: it holds other characters than small letters, digits, `_` and `-`.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise BenchError(f"pool name '{name}'; use small letters, digits, - and _, as in mine")


def read_index(folder: Path) -> PoolIndex:
    """Read a pool's `pool.json`.

    Raises:
        BenchError: it is missing, not JSON, or of another format.
    """
    values = read_json(folder / POOL)
    if isinstance(values, dict) and values.get("format") not in (None, FORMAT):
        raise BenchError(
            f"'{folder / POOL}' has format {values['format']}, this version reads {FORMAT}; "
            "export the pool again with this version"
        )
    return validated(PoolIndex, values, folder / POOL)


def read_card(folder: Path, stored: StoredTeacher) -> TeacherCard:
    """Read a teacher's card after comparing its digest.

    Raises:
        BenchError: the card is missing, was changed, or says something that cannot be.
    """
    path = folder / stored.folder / CARD
    check_digest(path, stored.card_sha256)
    return validated(TeacherCard, read_json(path), path)


def check_digest(path: Path, expected: str) -> None:
    """Compare a file with its digest, before anything parses it.

    Raises:
        BenchError: the file is missing or was changed.
    """
    try:
        found = file_sha256(path)
    except OSError as error:
        raise BenchError(
            f"'{path}' cannot be read ({error.strerror}); a pool needs all its files"
        ) from None
    if found != expected:
        raise BenchError(
            f"'{path}' has SHA-256 {found[:12]}…, expected is {expected[:12]}…; the file was "
            "changed: get it again from its source"
        )


def read_json(path: Path) -> object:
    """Return a JSON file's content.

    Raises:
        BenchError: it cannot be read or parsed.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise BenchError(f"'{path}' is not readable ({reason}); export the pool again") from None


def validated(kind: type[ConfigT], values: object, where: Path | str) -> ConfigT:
    """Return a configuration model of the values, or raise an error of one line.

    Raises:
        BenchError: a value is missing, unknown or not allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "values"
        reason = first["msg"].removeprefix("Value error, ")
        raise BenchError(f"'{where}': {key}: {reason}; correct it") from None
