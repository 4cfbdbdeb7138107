"""Export of pools with digests, and import of exported pools.

Digests are compared before anything is parsed. A pool appears in the cache by one rename, complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save as serialise_safetensors

from bench.contract import Backbone, Pool, Teacher
from bench.errors import BenchError
from bench.leases import waiting
from bench.nets.base import placed
from bench.nets.build import build_net
from bench.results.files import file_sha256, sync_folder, write_bytes, write_json
from bench.teachers.cards import (
    CARD,
    POOL,
    WEIGHTS,
    PoolIndex,
    StoredTeacher,
    TeacherCard,
    cached_index,
    check_digest,
    check_pool_name,
    pool_folder,
    pools_folder,
    read_card,
    read_index,
)
from bench.teachers.weights import load_state, read_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def load_pool(cache: Path, name: str, device: torch.device | str = "cpu") -> Pool:
    """Return an imported pool; digests are compared before weights are parsed.

    Raises:
        BenchError: there is no such pool, or a file of it was changed.
    """
    cached_index(cache, name)
    pool = read_pool(pool_folder(cache, name))
    for teacher in pool:
        placed(teacher.net, device)
    return pool


def read_pool(folder: Path) -> Pool:
    """Return the pool in a folder, on the CPU; see `load_pool`."""
    index = read_index(folder)
    cards = [read_card(folder, stored) for stored in index.teachers]
    nets = []
    for stored, card in zip(index.teachers, cards, strict=True):
        path = folder / stored.folder / WEIGHTS
        check_digest(path, stored.weights_sha256)
        net = build_net(card.spec)
        load_state(net, read_state(path), path)
        nets.append(net.eval())
    digests = [stored.weights_sha256 for stored in index.teachers]
    names = [f"{index.name}/{stored.folder}" for stored in index.teachers]
    return Pool(teachers_of(names, cards, nets, digests), index.sha256)


def teachers_of(
    names: Sequence[str],
    cards: Sequence[TeacherCard],
    nets: Sequence[Backbone],
    digests: Sequence[str],
) -> list[Teacher]:
    """Return the teachers of a pool, frozen, their classes numbered through the whole pool.

    Args:
        names: of each teacher.
        cards: of each.
        nets: of each, with its weights.
        digests: SHA-256 (hex) of the weights of each.
    """
    numbers = number_names(cards)
    return [
        Teacher(
            name=name,
            dataset=card.dataset,
            spec=card.spec,
            class_names=card.class_names,
            class_ids=tuple(numbers[card.dataset, one] for one in card.class_names),
            mean=card.mean,
            std=card.std,
            accuracy=card.accuracy,
            sha256=digest,
            net=net.requires_grad_(False),
        )
        for name, card, net, digest in zip(names, cards, nets, digests, strict=True)
    ]


def number_names(cards: Sequence[TeacherCard]) -> dict[tuple[str, str], int]:
    """Number the classes of a pool: equal names of one data set are one class."""
    datasets = list(dict.fromkeys(card.dataset for card in cards))
    known = {(card.dataset, name) for card in cards for name in card.class_names}
    ordered = sorted(known, key=lambda pair: (datasets.index(pair[0]), pair[1]))
    return {pair: number for number, pair in enumerate(ordered)}


def export_pool(teachers: Sequence[Teacher], name: str, source: str, folder: Path) -> PoolIndex:
    """Write a pool to a new folder: weights, cards and digests.

    Args:
        teachers: in order.
        name: the pool's.
        source: where they come from, for the cards.
        folder: made by one rename.

    Raises:
        BenchError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise BenchError(f"'{folder}' exists; export to a folder that is not there yet")
    with _new_folder(folder) as temporary:
        entries = []
        for number, teacher in enumerate(teachers):
            state = {name: t.detach().cpu() for name, t in teacher.net.state_dict().items()}
            entries.append(_store(temporary, number, _card_of(teacher, source), state))
        index = PoolIndex(name=name, teachers=tuple(entries))
        write_json(temporary / POOL, index.model_dump(mode="json"))
    return index


def _card_of(teacher: Teacher, source: str) -> TeacherCard:
    return TeacherCard.model_validate(
        {
            "dataset": teacher.dataset,
            "architecture": teacher.spec.architecture,
            "n_outputs": teacher.spec.n_classes,
            "image_size": teacher.spec.image_size,
            "class_names": teacher.class_names,
            "mean": teacher.mean,
            "std": teacher.std,
            "accuracy": teacher.accuracy,
            "source": source,
        }
    )


def import_pool(cache: Path, name: str, folder: Path) -> PoolIndex:
    """Copy an exported pool into the cache under a name, after checking that it loads.

    Raises:
        BenchError: the name is taken, or a file is missing, changed or does not fit.
    """
    check_pool_name(name)
    read_pool(folder)
    index = read_index(folder).model_copy(update={"name": name})
    with _locked(cache, name):
        target = pools_folder(cache) / name
        if target.exists():
            raise BenchError(
                f"pool '{name}' is there already; import under another name, or delete '{target}'"
            )
        with _new_folder(target) as temporary:
            for stored in index.teachers:
                (temporary / stored.folder).mkdir()
                for file in (CARD, WEIGHTS):
                    shutil.copyfile(folder / stored.folder / file, temporary / stored.folder / file)
            write_json(temporary / POOL, index.model_dump(mode="json"))
        read_pool(target)
    return index


def append_teacher(
    cache: Path, name: str, card: TeacherCard, state: Mapping[str, Tensor]
) -> PoolIndex:
    """Add a teacher to an imported pool as its last one; a new name starts a pool.

    Args:
        cache: the cache folder.
        name: the pool's.
        card: the teacher's.
        state: its network's state dict.
    """
    target = pools_folder(cache) / name
    entries: list[StoredTeacher] = []
    with _locked(cache, name), _new_folder(target) as temporary:
        if target.exists():
            entries = list(read_index(target).teachers)
            for stored in entries:
                shutil.copytree(target / stored.folder, temporary / stored.folder)
        entries.append(_store(temporary, len(entries), card, state))
        index = PoolIndex(name=name, teachers=tuple(entries))
        write_json(temporary / POOL, index.model_dump(mode="json"))
        read_pool(temporary)
    return index


def _store(
    folder: Path, number: int, card: TeacherCard, state: Mapping[str, Tensor]
) -> StoredTeacher:
    place = folder / f"{number:02d}"
    place.mkdir()
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    write_bytes(place / WEIGHTS, serialise_safetensors(tensors))
    write_json(place / CARD, card.model_dump(mode="json"))
    return StoredTeacher(
        folder=place.name,
        card_sha256=file_sha256(place / CARD),
        weights_sha256=file_sha256(place / WEIGHTS),
    )


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    pools_folder(cache).mkdir(parents=True, exist_ok=True)
    with waiting(pools_folder(cache) / f".{name}.lease", f"the import of pool {name}"):
        yield


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside the target; on success it takes the target's place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise BenchError(
            f"'{target.parent}' is not writable ({error.strerror}); name another folder"
        ) from None
    try:
        yield temporary
        if target.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
