"""Import of users' checkpoints: weights of a named network become a teacher of a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.contract import Backbone, NetSpec
from bench.errors import BenchError
from bench.nets.build import check_net
from bench.nets.imported import build_named, check_backbone, is_named
from bench.results.files import file_sha256
from bench.teachers.cards import PoolIndex, TeacherCard, check_digest, check_pool_name, validated
from bench.teachers.transfer import append_teacher
from bench.teachers.weights import fitted, load_state, read_state


def import_checkpoint(
    cache: Path,
    name: str,
    path: Path,
    card: Mapping[str, Any],
    allow_pickle: bool = False,
    sha256: str | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> PoolIndex:
    """Add a user's own checkpoint to a pool as its last teacher; a new name starts a pool.

    Args:
        cache: the cache folder.
        name: the pool's.
        path: the network's state dict: safetensors, or a pickle of weights (`.pth`).
        card: fields of `TeacherCard` but `source`; `n_outputs` defaults to the class names.
        allow_pickle: read a pickle, weights only.
        sha256: the file's digest, compared before parsing; None compares nothing.
        say: is told what was done to the names of its entries.

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
    state = _as_backbone(complete.spec, read_state(path, allow_pickle), path, say)
    return append_teacher(cache, name, complete, state)


def _as_backbone(
    spec: NetSpec, state: Mapping[str, Tensor], path: Path, say: Callable[[str], object]
) -> dict[str, Tensor]:
    """Convert a module's own state dict to that of its backbone."""
    module = _own_module(spec)
    state, done = fitted(module.state_dict(), state)
    for line in done:
        say(f"{path.name}: {line}")
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
