"""Pools in and out: export with digests; import of exported pools and of users' own checkpoints.

Digests are compared before anything is parsed, pickles are read only where the user says so and
then weights only, and what does not fit the network is refused in one line. A pool appears in the
cache by one rename, complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor, nn

from bench import registry
from bench.contract import NetSpec, Pool, Teacher
from bench.errors import BenchError
from bench.nets.base import Backbone
from bench.nets.build import build_net, check_net
from bench.nets.imported import build_named, check_backbone, is_named
from bench.results.files import file_sha256, sync_folder, write_json
from bench.teachers.cards import (
    CARD,
    POOL,
    WEIGHTS,
    PoolIndex,
    StoredTeacher,
    TeacherCard,
    check_digest,
    check_pool_name,
    pool_folder,
    pools_folder,
    read_card,
    read_index,
    validated,
)

PICKLES = (".pth", ".pt", ".bin", ".pkl")


def load_pool(cache: Path, name: str, device: torch.device | str = "cpu") -> Pool:
    """Return an imported pool, its digests compared before its weights are parsed.

    Raises:
        BenchError: there is no such pool, or a file of it was changed.
    """
    pool = read_pool(pool_folder(cache, name))
    for teacher in pool:
        teacher.net.to(device=device, memory_format=torch.channels_last)
    return pool


def read_pool(folder: Path) -> Pool:
    """Return the pool in a folder, on the CPU; see `load_pool`."""
    index = read_index(folder)
    cards = [read_card(folder, stored) for stored in index.teachers]
    numbers = _number_classes(cards)
    teachers = []
    for stored, card in zip(index.teachers, cards, strict=True):
        path = folder / stored.folder / WEIGHTS
        check_digest(path, stored.weights_sha256)
        net = build_net(card.spec)
        load_state(net, _parse(path), path)
        teachers.append(
            Teacher(
                name=f"{index.name}/{stored.folder}",
                dataset=card.dataset,
                spec=card.spec,
                class_names=card.class_names,
                class_ids=tuple(numbers[card.dataset, name] for name in card.class_names),
                mean=card.mean,
                std=card.std,
                accuracy=card.accuracy,
                sha256=stored.weights_sha256,
                net=net.eval().requires_grad_(False),
            )
        )
    return Pool(teachers, index.sha256)


def _number_classes(cards: Sequence[TeacherCard]) -> dict[tuple[str, str], int]:
    """Number the classes of a pool: equal names of one data set are one class."""
    datasets = list(dict.fromkeys(card.dataset for card in cards))
    known = {(card.dataset, name) for card in cards for name in card.class_names}
    ordered = sorted(known, key=lambda pair: (datasets.index(pair[0]), pair[1]))
    return {pair: number for number, pair in enumerate(ordered)}


def export_pool(teachers: Sequence[Teacher], name: str, source: str, folder: Path) -> PoolIndex:
    """Write a pool to a folder that is not there yet: weights, cards and digests.

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
    return TeacherCard(
        dataset=teacher.dataset,
        architecture=teacher.spec.architecture,
        n_outputs=teacher.spec.n_classes,
        image_size=teacher.spec.image_size,
        class_names=teacher.class_names,
        mean=teacher.mean,
        std=teacher.std,
        accuracy=teacher.accuracy,
        source=source,
    )


def import_pool(cache: Path, name: str, folder: Path) -> PoolIndex:
    """Take an exported pool into the cache, under a name, after loading it on trial.

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


def import_checkpoint(
    cache: Path,
    name: str,
    path: Path,
    card: Mapping[str, Any],
    allow_pickle: bool = False,
    sha256: str | None = None,
) -> PoolIndex:
    """Add a user's own checkpoint to a pool as its last teacher; a new name starts a pool.

    Args:
        cache: the cache folder.
        name: the pool's.
        path: the network's state dict: safetensors, or a pickle of weights (`.pth`).
        card: fields of `TeacherCard` but `source`; `n_outputs` defaults to the class names.
        allow_pickle: read a pickle, weights only.
        sha256: the file's digest, compared before parsing; None compares nothing.

    Raises:
        BenchError: the file is not there, was changed, is a pickle that is not allowed or holds
            more than weights, or does not fit the network.
    """
    check_pool_name(name)
    if not path.is_file():
        raise BenchError(f"checkpoint '{path}' is not there; name a safetensors or .pth file")
    if sha256 is not None:
        check_digest(path, sha256.lower())
    values = {
        "n_outputs": len(card["class_names"]),
        **card,
        "source": f"{path.name}, SHA-256 {file_sha256(path)}",
    }
    complete = validated(TeacherCard, values, path)
    check_net(complete.architecture)
    state = _as_backbone(complete.spec, _parse(path, allow_pickle), path)
    with _locked(cache, name):
        return _append(cache, name, complete, state)


def _as_backbone(spec: NetSpec, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the state of the backbone that a module's own state dict stands for."""
    module = _own_module(spec)
    _check_outputs(module.state_dict(), state, spec.n_classes, path)
    load_state(module, state, path)
    if isinstance(module, Backbone):
        return dict(module.state_dict())
    net = check_backbone(module.eval(), spec.image_size)
    if net.head.out_features != spec.n_classes:
        raise BenchError(
            f"network {spec.architecture} has {net.head.out_features} outputs, {spec.n_classes} "
            "class names are given; name the class of every output with --classes"
        )
    return dict(net.state_dict())


def _check_outputs(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], n_classes: int, path: Path
) -> None:
    """Refuse weights that differ from the network's in the number of outputs alone."""
    if set(expected) != set(state):
        return
    pairs = [(state[name], tensor) for name, tensor in expected.items()]
    differing = [(own, net) for own, net in pairs if own.shape != net.shape]
    outputs = {own.shape[:1] for own, _ in differing}
    of_head = all(
        net.shape[:1] == (n_classes,) and own.shape[1:] == net.shape[1:] for own, net in differing
    )
    if of_head and len(outputs) == 1 and (found := outputs.pop()):
        raise BenchError(
            f"'{path}' has {found[0]} outputs, {n_classes} class names are given; name the class "
            "of every output with --classes"
        )


def _own_module(spec: NetSpec) -> nn.Module:
    """Build the network with the names of entries that its author gave it."""
    with torch.random.fork_rng(devices=[]):
        if is_named(spec.architecture):
            return build_named(spec.architecture, spec.n_classes, spec.image_size)
        return registry.load("net", spec.architecture)(spec.n_classes, spec.image_size)


def _append(cache: Path, name: str, card: TeacherCard, state: Mapping[str, Tensor]) -> PoolIndex:
    target = pools_folder(cache) / name
    entries: list[StoredTeacher] = []
    with _new_folder(target) as temporary:
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
    (place / WEIGHTS).write_bytes(serialise_safetensors(tensors))
    write_json(place / CARD, card.model_dump(mode="json"))
    return StoredTeacher(
        folder=place.name,
        card_sha256=file_sha256(place / CARD),
        weights_sha256=file_sha256(place / WEIGHTS),
    )


def _parse(path: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file, whose digest has been compared where one is known."""
    if path.suffix.lower() in PICKLES:
        return _unpickle(path, allow_pickle)
    try:
        return parse_safetensors(path.read_bytes())
    except (SafetensorError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(
            f"'{path}' is not a safetensors file ({reason}); save the state dict with "
            "safetensors.torch.save_file, or name a .pth with --allow-pickle"
        ) from None


def _unpickle(path: Path, allowed: bool) -> dict[str, Tensor]:
    if not allowed:
        raise BenchError(
            f"'{path}' is a pickle, which can run code when read carelessly; pass --allow-pickle "
            "to read its weights only, or save it as safetensors"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds, all of which refuse the file
        reason = " ".join(str(error).split())[:120]
        raise BenchError(
            f"'{path}' holds more than weights, or is damaged ({type(error).__name__}: {reason}…); "
            "save the state dict alone, as safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise BenchError(f"'{path}' holds no state dict; save net.state_dict() alone")
    return dict(content)


def load_state(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a network that must have exactly these entries and shapes.

    Raises:
        BenchError: an entry is missing, unknown, of another shape, or not finite.
    """
    expected = net.state_dict()
    problem = _misfit(expected, state)
    if problem is not None:
        raise BenchError(
            f"'{path}' does not fit the network: {problem}; name the right network, and the size "
            "of the images that it was built for"
        )
    net.load_state_dict(state)


def _misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing:
        return f"entry '{missing[0]}' is missing ({len(missing)} in all)"
    if unknown:
        return f"entry '{unknown[0]}' is unknown ({len(unknown)} in all)"
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            return (
                f"entry '{name}' has shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            return f"entry '{name}' is not finite"
    return None


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    pools_folder(cache).mkdir(parents=True, exist_ok=True)
    with FileLock(pools_folder(cache) / f".{name}.lock"):
        yield


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside the target; on success it takes the target's place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BenchError(
            f"'{target.parent}' is not writable ({error.strerror}); name another folder"
        ) from None
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if target.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old)
        else:
            os.rename(temporary, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
